package spec

import (
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Action returns the key of the job's outputs: the digest of everything except
// the chunk that can change an output. Limits of time, of fuel and of the size
// of an output only decide whether there is one, and are not included. The job
// must be valid, with the defaults filled in.
//
// The hashed bytes are fixed: stores hold outputs under these keys.
func (j *Spec) Action() [sha256.Size]byte {
	h := sha256.New()
	module, _ := parseDigest(j.Module.Digest)
	fmt.Fprintf(h, "wasm-jobs action 1\nabi %d\nmodule %x\n", abi.Version, module)
	s := &j.Settings
	if s.NativeNaNs {
		fmt.Fprintln(h, "native NaNs")
	}
	if s.NoMetering { // then the fuel of outputs is unknown too
		fmt.Fprintln(h, "no metering")
	} else {
		fmt.Fprintf(h, "metering %d\n", s.Metering)
	}
	context := sha256.Sum256(abi.Null)
	if j.Context != "" {
		context, _ = parseDigest(j.Context)
	}
	fmt.Fprintf(h, "context %x\nseed %d\nmemory %d\n", context, s.Seed, s.Memory)
	if s.EngineFixes > 0 {
		fmt.Fprintf(h, "engine fixes %d\n", s.EngineFixes)
	}
	if stack := s.OtherStack(); stack != 0 {
		fmt.Fprintf(h, "stack %d\n", stack)
	}
	if s.Command != nil {
		s.Command.write(h)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// write writes the inputs of a WASI command other than its chunk. It writes
// nothing for fields that are not set. Strings are quoted, so that different
// commands are written differently.
func (c *Command) write(w io.Writer) {
	for _, arg := range c.Args {
		fmt.Fprintf(w, "arg %q\n", arg)
	}
	for _, pair := range c.Env {
		fmt.Fprintf(w, "env %q\n", pair)
	}
	if c.Stdin == StdinCBOR {
		fmt.Fprintln(w, "stdin cbor")
	}
	for _, d := range c.Dirs {
		digest, _ := parseDigest(d.Digest)
		fmt.Fprintf(w, "dir %q %x\n", d.Guest, digest)
	}
}

// ID returns the job's id: the digest of its action and its input. The job must
// be valid.
func (j *Spec) ID() [sha256.Size]byte {
	input, _ := parseDigest(j.Chunks.Digest)
	return IDOf(j.Action(), input)
}

// IDOf returns the id of a job from the digests of its action and its input.
func IDOf(action, input [sha256.Size]byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte("wasm-jobs job 1\n"))
	h.Write(action[:])
	h.Write(input[:])
	return [sha256.Size]byte(h.Sum(nil))
}
