package wasi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// TestSignatures compares the table with the engine's own implementation.
func TestSignatures(t *testing.T) {
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer r.Close(ctx)
	theirs, err := wasi_snapshot_preview1.NewBuilder(r).Compile(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := theirs.ExportedFunctions()
	if len(want) != len(functions) || len(Types()) != len(functions) {
		t.Errorf("%d functions of %d names, the engine has %d", len(functions), len(Types()), len(want))
	}
	for _, f := range functions {
		params, results := valueTypes(f.signature)
		w, ok := want[f.name]
		if !ok || !bytes.Equal(params, w.ParamTypes()) || !bytes.Equal(results, w.ResultTypes()) {
			t.Errorf("%s has type %s, but another one in the engine", f.name, f.signature)
		}
	}
}

// TestAnswers is for functions that have one result for a descriptor and touch no
// memory.
func TestAnswers(t *testing.T) {
	for _, test := range []struct {
		name string
		args int
		fds  []int // the parameters that are descriptors
		open errno // the result if all are open
	}{
		{"fd_advise", 4, []int{0}, errSpipe},
		{"fd_allocate", 3, []int{0}, errSpipe},
		{"fd_datasync", 1, []int{0}, success},
		{"fd_fdstat_set_rights", 3, []int{0}, errNotsup},
		{"fd_filestat_set_size", 2, []int{0}, errInval},
		{"fd_filestat_set_times", 4, []int{0}, errNotcap},
		{"fd_pread", 5, []int{0}, errSpipe},
		{"fd_prestat_dir_name", 3, []int{0}, errBadf},
		{"fd_prestat_get", 2, []int{0}, errBadf},
		{"fd_pwrite", 5, []int{0}, errSpipe},
		{"fd_readdir", 5, []int{0}, errNotdir},
		{"fd_seek", 4, []int{0}, errSpipe},
		{"fd_sync", 1, []int{0}, success},
		{"fd_tell", 2, []int{0}, errSpipe},
		{"path_create_directory", 3, []int{0}, errNotcap},
		{"path_filestat_get", 5, []int{0}, errNotcap},
		{"path_filestat_set_times", 7, []int{0}, errNotcap},
		{"path_link", 7, []int{0, 4}, errNotcap},
		{"path_open", 9, []int{0}, errNotcap},
		{"path_readlink", 6, []int{0}, errNotcap},
		{"path_remove_directory", 3, []int{0}, errNotcap},
		{"path_rename", 6, []int{0, 3}, errNotcap},
		{"path_symlink", 5, []int{2}, errNotcap},
		{"path_unlink_file", 3, []int{0}, errNotcap},
		{"sock_accept", 3, []int{0}, errNotsock},
		{"sock_recv", 6, []int{0}, errNotsock},
		{"sock_send", 5, []int{0}, errNotsock},
		{"sock_shutdown", 2, []int{0}, errNotsock},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGuest(t, Config{})
			args := make([]uint64, test.args)
			for fd := range uint64(3) {
				for _, i := range test.fds {
					args[i] = fd
				}
				if e := g.call(test.name, args...); e != test.open {
					t.Errorf("descriptor %d: errno %d, want %d", fd, e, test.open)
				}
			}
			g.must("fd_close", 1)
			for _, i := range test.fds {
				for _, fd := range []uint64{1, 3, 1 << 31, 1<<32 - 1} {
					args[i] = fd
					if e := g.call(test.name, args...); e != errBadf {
						t.Errorf("closed descriptor %d in parameter %d: errno %d, want %d", fd, i, e, errBadf)
					}
				}
				args[i] = 0
			}
			if !bytes.Equal(g.arena.memory(), make([]byte, memorySize)) {
				t.Error("memory was written")
			}
		})
	}
}

// TestPointers passes an address outside memory for each address of a result. Nothing
// must happen then.
func TestPointers(t *testing.T) {
	args, err := NewStrings("a", "b")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		good  []uint64
		where []int // addresses
		size  uint64
	}{
		{"args_get", []uint64{64, 128}, []int{0}, 8},
		{"args_get", []uint64{64, 128}, []int{1}, 4},
		{"args_sizes_get", []uint64{64, 128}, []int{0, 1}, 4},
		{"environ_get", []uint64{64, 128}, []int{0}, 8},
		{"environ_get", []uint64{64, 128}, []int{1}, 4},
		{"environ_sizes_get", []uint64{64, 128}, []int{0, 1}, 4},
		{"clock_res_get", []uint64{0, 64}, []int{1}, 8},
		{"clock_time_get", []uint64{0, 0, 64}, []int{2}, 8},
		{"fd_fdstat_get", []uint64{0, 64}, []int{1}, 24},
		{"fd_filestat_get", []uint64{0, 64}, []int{1}, 64},
		{"fd_read", []uint64{0, 64, 1, 32}, []int{1}, 8},
		{"fd_read", []uint64{0, 64, 1, 32}, []int{3}, 4},
		{"fd_write", []uint64{1, 64, 1, 32}, []int{1}, 8},
		{"fd_write", []uint64{1, 64, 1, 32}, []int{3}, 4},
		{"poll_oneoff", []uint64{64, 128, 1, 32}, []int{0}, subscriptionSize},
		{"poll_oneoff", []uint64{64, 128, 1, 32}, []int{1}, eventSize},
		{"poll_oneoff", []uint64{64, 128, 1, 32}, []int{3}, 4},
		{"random_get", []uint64{64, 16}, []int{0}, 16},
	} {
		for _, i := range test.where {
			t.Run(fmt.Sprint(test.name, " ", i), func(t *testing.T) {
				var out bytes.Buffer
				g := newGuest(t, Config{Args: args, Env: args})
				g.state.Reset(Call{Stdin: []byte("input"), Stdout: &out})
				g.put(64, u32(256), u32(4))
				before := g.get(0, memorySize)
				bad := append([]uint64{}, test.good...)
				for _, ptr := range []uint64{memorySize - test.size + 1, memorySize, 1 << 31, 1<<32 - test.size, 1<<32 - 1} {
					bad[i] = ptr
					if e := g.call(test.name, bad...); e != errFault {
						t.Errorf("address %#x: errno %d, want %d", ptr, e, errFault)
					}
				}
				if !bytes.Equal(before, g.get(0, memorySize)) || out.Len() > 0 || g.state.read > 0 {
					t.Error("something happened before the fault was found")
				}
				g.must(test.name, test.good...)
				bad[i] = memorySize - test.size
				g.must(test.name, bad...)
				g.arena.check(t)
			})
		}
	}
}

func TestNoMemory(t *testing.T) {
	ctx := &stateContext{context.Background(), New(Config{})}
	mod, err := engine().Instantiate(ctx, module(0, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer mod.Close(ctx)
	stack := []uint64{1, 0, 0}
	if err := mod.ExportedFunction("clock_time_get").CallWithStack(ctx, stack); err != nil || errno(stack[0]) != errFault {
		t.Errorf("errno %d, error %v", stack[0], err)
	}
}

func TestStrings(t *testing.T) {
	args, err := NewStrings("command", "", "-v")
	if err != nil {
		t.Fatal(err)
	}
	env, err := NewStrings("A=1")
	if err != nil {
		t.Fatal(err)
	}
	none, err := NewStrings()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name         string
		values       *Strings
		count, bytes uint32
		array, text  []byte
	}{
		{"nil", nil, 0, 0, nil, nil},
		{"none", none, 0, 0, nil, nil},
		{"one", env, 1, 4, u32(512), []byte("A=1\x00")},
		{"three", args, 3, 12, join(u32(512), u32(520), u32(521)), []byte("command\x00\x00-v\x00")},
	} {
		for _, kind := range []string{"args", "environ"} {
			t.Run(test.name+" "+kind, func(t *testing.T) {
				config := Config{Args: test.values}
				if kind == "environ" {
					config = Config{Env: test.values}
				}
				g := newGuest(t, config)
				g.must(kind+"_sizes_get", 64, 68)
				if !bytes.Equal(g.get(64, 8), join(u32(test.count), u32(test.bytes))) {
					t.Errorf("sizes %x", g.get(64, 8))
				}
				g.must(kind+"_get", 256, 512)
				if !bytes.Equal(g.get(256, len(test.array)+4), append(test.array, 0, 0, 0, 0)) ||
					!bytes.Equal(g.get(512, len(test.text)+4), append(test.text, 0, 0, 0, 0)) {
					t.Errorf("got %x and %q", g.get(256, 16), g.get(512, 16))
				}
			})
		}
	}
}

func TestRefusedStrings(t *testing.T) {
	for _, values := range [][]string{
		{"a\x00b"},
		{strings.Repeat("x", maxStrings)},
		make([]string, maxStrings/4),
	} {
		if _, err := NewStrings(values...); err == nil {
			t.Errorf("%d strings were accepted", len(values))
		}
	}
}

func TestExit(t *testing.T) {
	g := newGuest(t, Config{})
	for _, code := range []uint64{0, 1, 127, 1<<32 - 1} {
		if _, err := g.try("proc_exit", code); exitCode(err) != int(code) {
			t.Errorf("code %d gave %v", code, err)
		}
		if g.mod.IsClosed() {
			t.Fatal("the instance was closed")
		}
		g.state.Reset(Call{})
		g.now(0)
	}
}

func TestRaise(t *testing.T) {
	ignored := map[uint64]bool{0: true, 16: true, 17: true, 22: true, 27: true}
	g := newGuest(t, Config{})
	for signal := range uint64(31) {
		e, err := g.try("proc_raise", signal)
		if ignored[signal] {
			if err != nil || e != success {
				t.Errorf("signal %d: errno %d, error %v", signal, e, err)
			}
		} else if exitCode(err) != 128+int(signal) {
			t.Errorf("signal %d gave %v", signal, err)
		}
	}
	for _, signal := range []uint64{31, 32, 64, 1<<32 - 1} {
		if e := g.call("proc_raise", signal); e != errInval {
			t.Errorf("signal %d: errno %d", signal, e)
		}
	}
}

// TestCharge counts the work that each kind of call reports, and checks that it is
// reported in pieces.
func TestCharge(t *testing.T) {
	args, err := NewStrings("abc")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		args []uint64
		want uint64
	}{
		{"sched_yield", nil, 0},
		{"clock_time_get", []uint64{0, 0, 64}, 0},
		{"args_get", []uint64{64, 128}, 4 + 4},
		{"random_get", []uint64{64, 10}, 200_000 + 10}, // hashes the input
		{"random_get", []uint64{0, memorySize}, 200_000 + memorySize},
		{"random_get", []uint64{1, memorySize}, 0}, // faults
		{"fd_write", []uint64{1, 64, 2, 8}, 16 + 2*60_000},
		{"fd_read", []uint64{0, 64, 2, 8}, 16 + 2*60_000},
		{"fd_write", []uint64{1, 64, maxSpans + 1, 8}, 0},
		{"poll_oneoff", []uint64{128, 256, 2, 8}, 2 * (subscriptionSize + eventSize)},
	} {
		t.Run(test.name, func(t *testing.T) {
			var sum uint64
			g := newGuest(t, Config{Args: args, Charge: func(units uint64) {
				if units > piece {
					t.Errorf("%d units at once", units)
				}
				sum += units
			}})
			g.state.Reset(Call{Input: make([]byte, 200_000), Stdin: make([]byte, 200_000)})
			g.put(64, u32(1000), u32(60_000), u32(2000), u32(60_000))
			g.call(test.name, test.args...)
			if sum != test.want {
				t.Errorf("charged %d, want %d", sum, test.want)
			}
		})
	}
}

// TestChargeEnds ends calls of every size by a panic in Charge: the work done before
// stays, and a reset state works.
func TestChargeEnds(t *testing.T) {
	broke := errors.New("out of fuel")
	left := uint64(0)
	g := newGuest(t, Config{Charge: func(units uint64) {
		if units > left {
			panic(broke)
		}
		left -= units
	}})
	g.put(64, u32(1000), u32(60_000))
	for _, call := range []struct {
		name string
		args []uint64
		need uint64
	}{
		{"random_get", []uint64{0, memorySize}, memorySize + 100_000},
		{"fd_write", []uint64{1, 64, 1, 8}, 60_008},
		{"fd_read", []uint64{0, 64, 1, 8}, 60_008},
		{"poll_oneoff", []uint64{128, 256, 1, 8}, subscriptionSize + eventSize},
	} {
		for _, short := range []uint64{0, 1, 30_000} {
			g.put(0, make([]byte, memorySize))
			g.put(64, u32(1000), u32(60_000))
			g.state.Reset(Call{Input: make([]byte, 100_000), Stdin: make([]byte, 60_000)})
			left = call.need - min(short, call.need)
			_, err := g.try(call.name, call.args...)
			if (short == 0) != (err == nil) || (short > 0 && !errors.Is(err, broke)) {
				t.Errorf("%s, %d too little: %v", call.name, short, err)
			}
		}
	}
}
