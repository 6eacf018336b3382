// Package enginefuzz compares the engine with other engines: random modules must
// give the same memory, the same traps and the same fuel compiled and
// interpreted, metered and not, with canonical and native NaNs, and on V8 if
// node is installed.
//
// It contains only test code, and nothing imports it. It is not a part of package
// rewrite because it checks the rewriter and the engine together: the rewriter
// works around code that the engine compiles wrongly, and this package finds such
// code that is left.
//
// TestEngines tries a fixed set of modules in a few seconds, and make fuzz-engine
// as many as there is time for.
package enginefuzz
