package guestexamples_test

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/tetratelabs/wazero"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

type m = map[string]any

func TestFaultyOutputs(t *testing.T) {
	g := loadFile(t, "faulty/c/faulty.wasm")
	for _, tt := range []struct {
		chunk any
		want  any
	}{
		{2, 2}, {4, 4}, {1 << 40, 1 << 40}, {-3, -3}, {"text", "text"}, {[]int{3}, []int{3}}, {m{"id": 3}, m{"id": 3}}, {nil, nil},
		{m{"do": "ok"}, nil},
		{m{"do": "ok", "id": 1, "value": []string{"a"}}, []string{"a"}},
		{m{"do": "work", "n": 1000}, 1000},
		{m{"do": "big", "size": 3}, []byte{0, 0, 0}},
		{m{"do": "big", "size": 70_000}, make([]byte, 70_000)},
		{m{"do": "grown"}, nil},
		{m{"do": "counter"}, 1},
		{m{"do": "dirty"}, nil},
		{m{"do": "counter"}, 1},
		{m{"do": "heartbeat", "times": 2}, 2},
		{m{"do": "heartbeat"}, 5},
	} {
		output, err := g.run(t.Context(), &call{beats: 5}, abi.ExportExec, encode(t, tt.chunk))
		if want := encode(t, tt.want); err != nil || !bytes.Equal(output, want) {
			t.Errorf("%v: got %.100x, %v; want %.100x", tt.chunk, output, err, want)
		}
	}
	for what, want := range map[string]string{"malformed": "82011c", "truncated": "8201", "trailing": "0102", "empty": ""} {
		output, err := g.run(t.Context(), &call{}, abi.ExportExec, encode(t, m{"do": what}))
		if err != nil || !bytes.Equal(output, unhex(t, want)) || abi.CheckItem(output) == nil {
			t.Errorf("%s: %x, %v", what, output, err)
		}
	}
	if got := g.must(t, abi.ExportAggregate, entries([]byte{1}, []byte{2}, encode(t, "bad"))); !bytes.Equal(got, []byte{3}) {
		t.Errorf("aggregate of 3: %x", got)
	}
}

func TestFaultyFailures(t *testing.T) {
	g := loadFile(t, "faulty/c/faulty.wasm")
	denied := append(abi.AppendHead(nil, abi.MajorBytes, 65518), make([]byte, 65518)...)
	for _, tt := range []struct {
		chunk []byte
		want  string // part of the error
	}{
		{encode(t, 3), "unreachable"},
		{encode(t, 10), "unreachable"},
		{encode(t, m{"do": "trap"}), "unreachable"},
		{encode(t, m{"do": "oob"}), "out of bounds"},
		{encode(t, m{"do": "div0"}), "divide by zero"},
		{encode(t, m{"do": "stack"}), "stack overflow"},
		{encode(t, m{"do": "grow"}), "unreachable"},
		{encode(t, m{"do": "exit"}), "exit_code(0)"},
		{encode(t, m{"do": "exit", "code": 7}), "exit_code(7)"},
		{encode(t, m{"do": "badptr"}), errResult.Error()},
		{encode(t, m{"do": "wrap"}), errResult.Error()},
		{encode(t, m{"do": "what"}), "unknown request"},
		{encode(t, m{"do": "work", "n": "x"}), "not a number"},
		{denied, "alloc: 65521 bytes at 0"},
	} {
		output, err := g.run(t.Context(), &call{}, abi.ExportExec, tt.chunk)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.40x: got %x, %v; want %s", tt.chunk, output, err, tt.want)
		}
	}
	for i, what := range []string{"permanent", "retryable", "requeue"} {
		_, err := g.run(t.Context(), &call{}, abi.ExportExec, encode(t, m{"do": what, "message": "ä"}))
		if err != (failure{uint32(i), "ä"}) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := g.run(t.Context(), &call{}, abi.ExportExec, encode(t, m{"do": what})); err != (failure{uint32(i), "told to fail"}) {
			t.Errorf("%s: %v", what, err)
		}
	}
	bad := g.must(t, abi.ExportExec, encode(t, "bad-aggregate"))
	if _, err := g.run(t.Context(), &call{}, abi.ExportAggregate, entries([]byte{1}, bad)); err == nil || !strings.Contains(err.Error(), "unreachable") {
		t.Errorf("a bad aggregate: %v", err)
	}
}

func TestFaultyLoops(t *testing.T) {
	g := load(t, "faulty/c/faulty.wasm", wazero.NewRuntimeConfig().WithCloseOnContextDone(true))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := g.run(ctx, &call{}, abi.ExportExec, encode(t, m{"do": "loop"})); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestFaultyEffects(t *testing.T) {
	g := loadFile(t, "faulty/c/faulty.wasm")
	run := func(chunk m) (*call, any) {
		t.Helper()
		c := &call{}
		output, err := g.run(t.Context(), c, abi.ExportExec, encode(t, chunk))
		if err != nil {
			t.Fatalf("%v: %v", chunk, err)
		}
		var v any
		if err := cbor.Unmarshal(output, &v); err != nil {
			t.Fatalf("%v gave %x: %v", chunk, output, err)
		}
		return c, v
	}
	lines := []string{"-4 line 1", "-4 line 2"}
	if c, _ := run(m{"do": "log", "lines": 12, "level": -4}); len(c.logged) != 12 || !reflect.DeepEqual(c.logged[:2], lines) || c.logged[11] != "-4 line 12" {
		t.Errorf("logged %q", c.logged)
	}
	if c, _ := run(m{"do": "print"}); c.stdout.String() != "printed\n" {
		t.Errorf("printed %q", c.stdout.String())
	}
	if c, _ := run(m{"do": "print", "text": "x", "fd": 2}); c.stdout.Len() > 0 {
		t.Errorf("printed %q to the wrong descriptor", c.stdout.String())
	}
	if _, v := run(m{"do": "clock"}); len(v.([]any)) != 2 {
		t.Errorf("clocks %v", v)
	}
	_, first := run(m{"do": "random"})
	if _, second := run(m{"do": "random"}); len(first.([]byte)) != 16 || reflect.DeepEqual(first, second) {
		t.Errorf("random %x and %x", first, second)
	}
	if _, v := run(m{"do": "random", "size": 100}); len(v.([]byte)) != 100 {
		t.Errorf("random %x", v)
	}
}
