// Package flow moves items between states.
//
// An item is an id with data, one CBOR item; its roots are the chunks of an
// input. A state has an executor, a step is one visit of one item to one state,
// and a move is the decision of a step: the next state, the data, children and a
// delay. An effect is a step that touches the outside, an end is a terminal
// state, and a run is one flow over one input, under a name.
//
// The store is the journal. A step of a module is a pure function of the module,
// its settings and the data: its output is kept under that key, like the output of
// a chunk. The state of an item follows from the input, the flow and the store. A
// restart, a status and a verification are therefore the same replay by look-up,
// which executes nothing that is stored. A journal under the run's own keys holds
// only results that do not follow from data.
package flow
