package journal

import (
	"errors"
	"slices"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/host/spec"
	"github.com/wasm-jobs/wasm-jobs/store"
)

func TestCheck(t *testing.T) {
	action, input := store.Action{1}, store.Digest{2}
	id := store.JobID(spec.IDOf(action, input))
	flow := []byte(`{"kind":"flow"}`)
	for _, test := range []struct {
		name   string
		record store.JobRecord
		pieces []string
		sound  bool
	}{
		{"no chunks", store.JobRecord{ID: id, Action: action, Input: input, Spec: []byte(`{}`)}, nil, true},
		{"integers and texts", store.JobRecord{ID: id, Action: action, Input: input, Spec: []byte(`{}`), Total: 5}, []string{"\x00\x01\x02", "\x00\x07\x01\x01\x00\x01\x01a"}, true},
		{"a flow", store.JobRecord{ID: store.JobID(input), Action: action, Input: input, Spec: flow}, nil, true},
		{"another action", store.JobRecord{ID: id, Action: store.Action{3}, Input: input, Spec: []byte(`{}`)}, nil, false},
		{"another input", store.JobRecord{ID: id, Action: action, Input: store.Digest{3}, Spec: []byte(`{}`)}, nil, false},
		{"a flow with another id", store.JobRecord{ID: id, Action: action, Input: input, Spec: flow}, nil, false},
		{"no specification", store.JobRecord{ID: id, Action: action, Input: input, Spec: []byte(`[]`)}, nil, false},
		{"too few ids", store.JobRecord{ID: id, Action: action, Input: input, Spec: []byte(`{}`), Total: 3}, []string{"\x00\x01\x02"}, false},
		{"too many ids", store.JobRecord{ID: id, Action: action, Input: input, Spec: []byte(`{}`), Total: 1}, []string{"\x00\x01\x02"}, false},
		{"an id cut short", store.JobRecord{ID: id, Action: action, Input: input, Spec: []byte(`{}`), Total: 1}, []string{"\x01\x05a"}, false},
		{"an id twice", store.JobRecord{ID: id, Action: action, Input: input, Spec: []byte(`{}`), Total: 3}, []string{"\x00\x01\x02\x00\x02\x01"}, false},
		{"pieces in another order", store.JobRecord{ID: id, Action: action, Input: input, Spec: []byte(`{}`), Total: 2}, []string{"\x00\x07\x01", "\x00\x01\x01"}, false},
		{"a text before an integer", store.JobRecord{ID: id, Action: action, Input: input, Spec: []byte(`{}`), Total: 2}, []string{"\x01\x01a\x00\x01\x01"}, false},
		{"integers beyond the last one", store.JobRecord{ID: id, Action: action, Input: input, Spec: []byte(`{}`), Total: 2}, []string{"\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02"}, false},
		{"a text that is not UTF-8", store.JobRecord{ID: id, Action: action, Input: input, Spec: []byte(`{}`), Total: 1}, []string{"\x01\x01\xff"}, false},
	} {
		var pieces [][]byte
		for _, p := range test.pieces {
			pieces = append(pieces, []byte(p))
		}
		err := Check(test.record, slices.Values(pieces))
		if (err == nil) != test.sound || err != nil && !errors.Is(err, errDamaged) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
