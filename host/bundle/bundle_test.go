package bundle_test

import (
	"bytes"
	"crypto/sha256"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/bundle"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

func example() *bundle.Bundle {
	return &bundle.Bundle{
		ID: abi.TextID("../a b"), Chunk: []byte{0x82, 1, 2}, Module: bundle.Module{SHA256: sha256.Sum256([]byte("module")), Size: 6},
		Options: runtime.Options{NativeNaNs: true},
		Settings: runtime.Settings{
			Context: []byte{7}, Seed: 1<<64 - 1, Memory: 1 << 20, MaxOutput: 1 << 10, Fuel: 1000, Timeout: time.Second, FoldTimeout: time.Minute,
			Command: runtime.Command{Args: []string{"a", ""}, Env: []string{"K=V"}, Stdin: runtime.StdinCBOR},
		},
		Dirs:    []bundle.Dir{{Guest: "/data", Digest: sha256.Sum256([]byte("data"))}},
		Failure: abi.Failure{Class: abi.ClassTrap, Message: "unreachable", Stack: []string{"a", "b"}, Fuel: 12}, Shortened: true,
	}
}

func encode(t testing.TB, b *bundle.Bundle) []byte {
	t.Helper()
	file, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestRoundTrip(t *testing.T) {
	want := example()
	file := encode(t, want)
	got, err := bundle.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if err := abi.CheckItem(file); err != nil {
		t.Errorf("the file is not a CBOR item: %v", err)
	}
}

// TestDefaults checks that the bundle of a job with default limits states these
// limits.
func TestDefaults(t *testing.T) {
	b := &bundle.Bundle{ID: abi.IntID(3), Chunk: []byte{3}, Options: runtime.Options{NoMetering: true}}
	got, err := bundle.Decode(encode(t, b))
	if err != nil {
		t.Fatal(err)
	}
	s := got.Settings
	if s.Memory != runtime.DefaultMemory || s.MaxOutput != runtime.DefaultMaxOutput || !bytes.Equal(s.Context, abi.Null) || !got.Options.NoMetering {
		t.Errorf("got %+v, %+v", s, got.Options)
	}
}

// TestDamage changes every bit of a bundle, and cuts it at every byte.
func TestDamage(t *testing.T) {
	file := encode(t, example())
	for i := range file {
		for bit := range 8 {
			damaged := bytes.Clone(file)
			damaged[i] ^= 1 << bit
			if _, err := bundle.Decode(damaged); err == nil {
				t.Fatalf("byte %d, bit %d: no error", i, bit)
			}
		}
		if _, err := bundle.Decode(file[:i]); err == nil {
			t.Fatalf("%d bytes: no error", i)
		}
	}
	if _, err := bundle.Decode(append(file, 0)); err == nil {
		t.Fatal("a byte more: no error")
	}
}

// seal makes a file of contents with a correct checksum.
func seal(t *testing.T, contents any) []byte {
	t.Helper()
	inner, err := cbor.Marshal(contents)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(inner)
	file, err := cbor.Marshal([]any{"wasm-jobs bundle", 1, inner, sum[:]})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// TestContents checks that invalid contents with a correct checksum are
// refused.
func TestContents(t *testing.T) {
	right := func() map[string]any {
		return map[string]any{
			"id": 1, "chunk": []byte{1}, "context": []byte{0xf6}, "module": map[string]any{"sha256": make([]byte, 32), "size": 5},
			"settings": map[string]any{"abi": abi.Version, "memory": 1, "max_output": 1, "metering": runtime.MeteringVersion, "command": map[string]any{"stdin": "raw"}},
			"failure":  map[string]any{"class": "trap", "message": "m", "stack": []string{}},
		}
	}
	for _, test := range []struct {
		name   string
		change func(m map[string]any)
		want   string
	}{
		{"nothing", func(map[string]any) {}, ""},
		{"no id", func(m map[string]any) { delete(m, "id") }, "invalid id: want"},
		{"negative id", func(m map[string]any) { m["id"] = -1 }, "invalid id: want"},
		{"chunk", func(m map[string]any) { m["chunk"] = []byte{0x82} }, "the chunk is not one CBOR item"},
		{"context", func(m map[string]any) { m["context"] = []byte{} }, "the context is not one CBOR item"},
		{"digest", func(m map[string]any) { m["module"].(map[string]any)["sha256"] = []byte{1} }, "the module's SHA-256 has 1 bytes"},
		{"size", func(m map[string]any) { m["module"].(map[string]any)["size"] = uint64(1) << 63 }, "the module's size"},
		{"ABI", func(m map[string]any) { m["settings"].(map[string]any)["abi"] = 99 }, "version 99 of the guest ABI"},
		{"metering", func(m map[string]any) { m["settings"].(map[string]any)["metering"] = 99 }, "version 99 of metering"},
		{"memory", func(m map[string]any) { delete(m["settings"].(map[string]any), "memory") }, "invalid limit: 0 bytes"},
		{"time", func(m map[string]any) { m["settings"].(map[string]any)["timeout"] = uint64(1) << 63 }, "invalid limit: the time is too long"},
		{"message", func(m map[string]any) { m["failure"].(map[string]any)["message"] = strings.Repeat("a", 1<<17) }, "the message"},
		{"frame", func(m map[string]any) { m["failure"].(map[string]any)["stack"] = []string{strings.Repeat("a", 1<<17)} }, "a frame"},
		{"frames", func(m map[string]any) { m["failure"].(map[string]any)["stack"] = make([]string, 5000) }, "more than 1024 frames"},
		{"standard input", func(m map[string]any) { command(m)["stdin"] = "file" }, "want raw or cbor"},
		{"directory", func(m map[string]any) {
			command(m)["dirs"] = []any{map[string]any{"guest": "/data", "sha256": []byte{1}}}
		}, "SHA-256 of directory"},
		{"unknown key", func(m map[string]any) { m["more"] = 1 }, "invalid contents"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := right()
			test.change(m)
			_, err := bundle.Decode(seal(t, m))
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// FuzzDecode checks that decoded bundles are encoded to the same bytes.
func FuzzDecode(f *testing.F) {
	f.Add(encode(f, example()))
	f.Add(encode(f, &bundle.Bundle{Chunk: []byte{0}}))
	f.Fuzz(func(t *testing.T, file []byte) {
		b, err := bundle.Decode(file)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("an error of several lines: %v", err)
			}
			return
		}
		again, err := bundle.Decode(encode(t, b))
		if err != nil || !reflect.DeepEqual(again, b) {
			t.Errorf("got %+v, %v; first %+v", again, err, b)
		}
	})
}

// TestEverySettingIsKept fails if package runtime has a setting or an option
// that this test does not know: a setting that can change the result of a call
// must be in the bundle.
func TestEverySettingIsKept(t *testing.T) {
	kept := map[string]string{
		"Context": "context", "Seed": "settings.seed", "Memory": "settings.memory", "MaxOutput": "settings.max_output", "Fuel": "settings.fuel",
		"Stack": "settings.stack", "Timeout": "settings.timeout", "FoldTimeout": "settings.fold_timeout",
		"NoMetering": "settings.metering", "NativeNaNs": "settings.native_nans",
		"Command":      "settings.command, and Bundle.Dirs",
		"MaxAggregate": "", // no limit of exec
		"Isolation":    "", // another way to the same
	}
	for _, of := range []reflect.Type{reflect.TypeFor[runtime.Settings](), reflect.TypeFor[runtime.Options]()} {
		for field := range of.Fields() {
			if _, known := kept[field.Name]; !known {
				t.Errorf("%v.%s is in no bundle: add it to the format, or say here why not", of, field.Name)
			}
		}
	}
}

func command(m map[string]any) map[string]any {
	return m["settings"].(map[string]any)["command"].(map[string]any)
}
