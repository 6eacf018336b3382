package host_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
)

// seconds returns a sequence of inputs for a sleeper.
func seconds(all ...uint64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		var buffer []byte
		for _, n := range all {
			buffer = append(buffer[:0], number(n)...) // shared by all inputs, as in many sources
			if !yield(buffer, nil) {
				return
			}
		}
	}
}

// endless yields the number n without end, and counts.
func endless(n uint64, taken *int) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for *taken = 1; yield(number(n), nil); *taken++ {
		}
	}
}

// texts returns the outputs of a loop, with the seconds at which they came.
func texts(seq iter.Seq2[host.Output, error]) string {
	began := time.Now()
	var all []string
	for o, err := range seq {
		text := fmt.Sprint(o.ID, "=", err)
		if err == nil {
			text = fmt.Sprint(o.ID, "=", numberOf(o.Output))
		}
		all = append(all, fmt.Sprint(text, "@", time.Since(began).Seconds()))
	}
	return strings.Join(all, " ")
}

func TestMap(t *testing.T) {
	for _, tt := range []struct {
		name             string
		inputs           []uint64
		arrived, inOrder string
	}{
		{"none", nil, "", ""},
		{"one", []uint64{5}, "0=5@5", "0=5@5"},
		{"as they finish", []uint64{5, 1, 2, 3}, "1=1@1 2=2@3 0=5@5 3=3@6", "0=5@5 1=1@5 2=2@5 3=3@6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSleeper()
				g := openFake(t, s, 2)
				outputs := g.Map(t.Context(), seconds(tt.inputs...))
				for range 2 { // a loop may be repeated
					if got := texts(outputs); got != tt.arrived {
						t.Errorf("as they finish: %s, want %s", got, tt.arrived)
					}
				}
				if got := texts(g.MapOrdered(t.Context(), seconds(tt.inputs...))); got != tt.inOrder {
					t.Errorf("in order: %s, want %s", got, tt.inOrder)
				}
				closeGuest(t, g)
				s.checkTeardown(t)
			})
		})
	}
}

// Map takes few chunks of an endless sequence that the loop has not seen, even
// if one of them delays all others.
func TestMapIsBounded(t *testing.T) {
	const workers, most = 2, 4 * 2
	synctest.Test(t, func(t *testing.T) {
		s := newSleeper()
		g := openFake(t, s, workers)
		taken, seen := 0, 0
		for _, err := range g.Map(t.Context(), endless(0, &taken)) {
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // until the workers can do no more
			if seen++; taken != seen-1+most {
				t.Fatalf("%d chunks were taken after %d in the loop, want %d more", taken, seen-1, most)
			}
			if seen == 100 {
				break
			}
		}
		began, at := time.Now(), []time.Duration{}
		for range g.MapOrdered(t.Context(), seconds(60, 1, 1, 1, 1, 1, 1, 1, 1, 1)) {
			at = append(at, time.Since(began)/time.Second)
		}
		if want := []time.Duration{60, 60, 60, 60, 60, 60, 60, 60, 61, 61}; !slices.Equal(at, want) {
			t.Errorf("the outputs came at %v, want %v", at, want)
		}
		if s.most != workers {
			t.Errorf("%d calls ran at once, want %d", s.most, workers)
		}
		closeGuest(t, g)
	})
}

var errSource = errors.New("the source broke")

func items(last error, all ...string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, item := range all {
			if !yield([]byte(item), nil) {
				return
			}
		}
		if last != nil {
			yield(nil, last)
		}
	}
}

// One bad chunk does not end a sequence; an error that ends it comes last.
func TestMapErrors(t *testing.T) {
	g := open(t, squareWat(t), host.Options{})
	for _, tt := range []struct {
		name string
		seq  iter.Seq2[[]byte, error]
		want string
	}{
		{"a failure", items(nil, "\x02", "\x61x", "\x03"), "0=4 1=chunk 1: guest: not an integer 2=9"},
		{"not an item", items(nil, "\x02", "", "\x03"), "0=4 1=chunk 1: the input is not one CBOR item: empty: not a CBOR item 2=9"},
		{"of the source", items(errSource, "\x02", "\x03"), "0=4 1=9 0=the source broke"},
		{"of the source at once", items(errSource), "0=the source broke"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for o, err := range g.MapOrdered(t.Context(), tt.seq) {
				text := fmt.Sprint(err)
				if err == nil {
					text = fmt.Sprint(numberOf(o.Output))
				}
				got = append(got, fmt.Sprint(o.ID, "=", text))
				chunk, ok := errors.AsType[*host.ChunkError](err)
				if err != nil && !errors.Is(err, errSource) && (!ok || chunk.ID != o.ID) {
					t.Errorf("error %v of output %v", err, o.ID)
				}
			}
			if got := strings.Join(got, " "); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

// The causes of a ChunkError can be distinguished.
func TestChunkErrorUnwraps(t *testing.T) {
	g := open(t, squareWat(t), host.Options{})
	var failed, invalid int
	for _, err := range g.Map(t.Context(), host.Values(slices.Values([][]byte{[]byte("\x61x"), {}}))) {
		if failure, ok := errors.AsType[*abi.Failure](err); ok && failure.Class == abi.ClassGuest {
			failed++
		}
		if errors.Is(err, host.ErrInput) {
			invalid++
		}
	}
	if failed != 1 || invalid != 1 {
		t.Errorf("%d failures and %d invalid inputs, want one of each", failed, invalid)
	}
}

// TestMapEnds checks that nothing runs after the end of a loop: a running call
// would delay Close.
func TestMapEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(t *testing.T, g *host.Guest)
	}{
		{"by break", func(t *testing.T, g *host.Guest) {
			for range g.Map(t.Context(), endless(1, new(int))) {
				break
			}
		}},
		{"by a panic of the loop", func(t *testing.T, g *host.Guest) {
			defer expectPanic(t, "loop")
			for range g.Map(t.Context(), endless(1, new(int))) {
				panic("loop")
			}
		}},
		{"by a panic of the source", func(t *testing.T, g *host.Guest) {
			defer expectPanic(t, "source")
			for _, err := range g.Map(t.Context(), func(yield func([]byte, error) bool) {
				yield(number(60), nil)
				panic("source")
			}) {
				t.Errorf("the loop goes on, with error %v", err)
			}
		}},
		{"by a source that ends its goroutine", func(t *testing.T, g *host.Guest) {
			var one sync.WaitGroup
			one.Go(func() {
				for range g.Map(t.Context(), func(func([]byte, error) bool) { goruntime.Goexit() }) {
					t.Error("the loop goes on")
				}
				t.Error("the goroutine of the loop goes on")
			})
			one.Wait()
		}},
		{"by cancelling", func(t *testing.T, g *host.Guest) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var last error
			for _, err := range g.Map(ctx, endless(1, new(int))) {
				cancel()
				last = err
			}
			if !errors.Is(last, context.Canceled) {
				t.Errorf("the last error is %v", last)
			}
		}},
		{"by a deadline", func(t *testing.T, g *host.Guest) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if got := texts(g.Map(ctx, items(nil, "\x03", "\x02"))); got != "1=2@2 0=3@3" {
				t.Errorf("before: %s", got)
			}
			got := texts(g.Map(ctx, func(yield func([]byte, error) bool) { <-ctx.Done() }))
			if got != "0=context deadline exceeded@2" {
				t.Errorf("while the source waits: %s", got)
			}
		}},
		{"by Close", func(t *testing.T, g *host.Guest) {
			var last error
			for _, err := range g.Map(t.Context(), endless(1, new(int))) {
				last = err
				closeGuest(t, g)
			}
			if !errors.Is(last, host.ErrClosed) {
				t.Errorf("the last error is %v", last)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
				s := newSleeper()
				g := openFake(t, s, 2)
				tt.end(t, g)
				began := time.Now()
				closeGuest(t, g)
				if time.Since(began) != 0 {
					t.Error("a call was running when the loop had ended")
				}
				s.checkTeardown(t)
			})
		})
	}
}

func expectPanic(t *testing.T, want string) {
	if p := recover(); p != want {
		t.Errorf("panic %v, want %s", p, want)
	}
}

// A deadline also stops the calls of a loop.
func TestMapStopsCalls(t *testing.T) {
	g := open(t, readFile(t, "../guest-examples/faulty/c/faulty.wasm"), host.Options{Workers: 2})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	var last error
	for _, err := range g.Map(ctx, items(nil, loops, loops, loops)) {
		last = err
	}
	if !errors.Is(last, context.DeadlineExceeded) {
		t.Errorf("the last error is %v", last)
	}
}

func TestMapWithoutLoop(t *testing.T) {
	g := open(t, squareWat(t), host.Options{})
	g.Map(t.Context(), func(func([]byte, error) bool) { t.Error("the sequence was asked") })
}
