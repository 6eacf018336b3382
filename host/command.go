package host

import (
	"fmt"
	"io"

	"github.com/wasm-jobs/wasm-jobs/host/jobs"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// writeCommand writes what a WASI command can see beside its chunk, as a part of
// the key of its outputs: of what is not set, nothing. Strings are quoted, so
// that no two commands are written alike.
func writeCommand(w io.Writer, s *receipt.Settings) {
	for _, arg := range s.Args {
		fmt.Fprintf(w, "arg %q\n", arg)
	}
	for _, pair := range s.Env {
		fmt.Fprintf(w, "env %q\n", pair)
	}
	if s.Stdin == receipt.StdinCBOR {
		fmt.Fprintln(w, "stdin cbor")
	}
	for _, d := range s.Dirs {
		fmt.Fprintf(w, "dir %q %x\n", d.Guest, d.Digest[:])
	}
}

// commandSpec is what is recorded of a command, or nil where nothing is set.
func commandSpec(c *runtime.Command) *jobs.Command {
	spec := &jobs.Command{Args: c.Args, Env: c.Env, Stdin: string(c.Stdin)}
	if spec.Stdin == "" {
		spec.Stdin = string(runtime.StdinRaw)
	}
	for _, d := range c.Dirs {
		spec.Dirs = append(spec.Dirs, jobs.Dir{Guest: d.Guest, Digest: digest(d.Tree.Digest()), Files: d.Tree.Files(), Bytes: d.Tree.Bytes()})
	}
	if len(spec.Args)+len(spec.Env)+len(spec.Dirs) == 0 && c.Stdin != runtime.StdinCBOR {
		return nil
	}
	return spec
}
