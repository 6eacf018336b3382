package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

// commandFlags are about WASI commands, in each command that calls modules.
func commandFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "arg", KeepSpace: true, Usage: "of a WASI command: an `ARGUMENT`; may be given again"},
		&cli.StringSliceFlag{Name: "env", KeepSpace: true, Usage: "of a WASI command: `KEY=VALUE` of its environment; may be given again, and is recorded with the job"},
		&cli.StringFlag{Name: "stdin", Value: string(runtime.StdinRaw), Usage: "of a WASI command: it reads the content of a chunk that is a string (raw), or any chunk's own bytes (cbor)"},
		&cli.StringSliceFlag{Name: "dir", KeepSpace: true, Usage: "of a WASI command: it may read the directory `HOST:GUEST`, as it is at the start; may be given again"},
		&cli.StringFlag{Name: "max-dir", Value: "256MiB", Usage: "limit of the files of all --dir together, which are held in memory"},
	}
}

// commandOptions are what a WASI command gets, before its directories are read.
type commandOptions struct {
	runtime.Command
	dirs  []hostDir
	limit int64 // of their files, in bytes
}

// hostDir is a directory for guests.
type hostDir struct{ host, guest string }

func (d hostDir) String() string { return d.host + ":" + d.guest }

func parseCommand(ctx *cli.Context) (o commandOptions, err error) {
	o.Args, o.Stdin = ctx.StringSlice("arg"), runtime.Stdin(ctx.String("stdin"))
	if o.Stdin != runtime.StdinRaw && o.Stdin != runtime.StdinCBOR {
		return o, refuse("--stdin %q is none of raw, cbor", o.Stdin)
	}
	env, err := parseEnv(ctx.StringSlice("env"))
	if err != nil {
		return o, err
	}
	given := o.Command
	o, err = parseDirs(ctx)
	o.Command, o.Env = given, env
	return o, err
}

// parseDirs reads the flags of directories alone.
func parseDirs(ctx *cli.Context) (o commandOptions, err error) {
	for _, value := range ctx.StringSlice("dir") {
		d, err := parseDir(value)
		if err != nil {
			return o, err
		}
		if slices.ContainsFunc(o.dirs, func(other hostDir) bool { return other.guest == d.guest }) {
			return o, refuse("--dir: two directories are to be %s: give each a name of its own", d.guest)
		}
		o.dirs = append(o.dirs, d)
	}
	o.limit, err = parseSize[int64](ctx, "max-dir")
	return o, err
}

// parseEnv returns an environment in the order of its keys: the order in which
// flags are given then changes no output.
func parseEnv(pairs []string) ([]string, error) {
	keys := map[string]bool{}
	for _, pair := range pairs {
		key, _, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, refuse("--env %q is no KEY=VALUE", pair)
		}
		if keys[key] {
			return nil, refuse("--env gives %s twice", key)
		}
		keys[key] = true
	}
	return slices.Sorted(slices.Values(pairs)), nil
}

// parseDir cuts at the last colon: drives have one.
func parseDir(value string) (hostDir, error) {
	i := strings.LastIndexByte(value, ':')
	if i < 1 || i == len(value)-1 {
		return hostDir{}, refuse("--dir %q is no HOST:GUEST, such as ./data:/data", value)
	}
	return hostDir{value[:i], path.Clean(value[i+1:])}, nil
}

// read reads the directories.
func (o *commandOptions) read(ctx context.Context) (runtime.Command, error) {
	c, left := o.Command, o.limit
	for _, d := range o.dirs {
		tree, err := wasi.ReadTree(ctx, d.host, left)
		if over, ok := errors.AsType[*wasi.TreeLimitError](err); ok && over.Bytes > 0 {
			return c, refuse("--dir %s: the files of all --dir have more than %d bytes: --max-dir raises the limit", d.host, o.limit)
		}
		if ctx.Err() != nil {
			return c, host.ErrInterrupted
		}
		if err != nil {
			return c, refuse("--dir %s: %w", d.host, err)
		}
		left -= tree.Bytes()
		c.Dirs = append(c.Dirs, wasi.Dir{Guest: d.guest, Tree: tree})
	}
	return c, nil
}

// flags returns the flags that o was read from.
func (o *commandOptions) flags() (args []string) {
	for _, arg := range o.Args {
		args = append(args, "--arg="+arg)
	}
	for _, pair := range o.Env {
		args = append(args, "--env="+pair)
	}
	for _, d := range o.dirs {
		args = append(args, "--dir="+d.String())
	}
	return append(args, "--stdin="+string(o.Stdin), "--max-dir="+strconv.FormatInt(o.limit, 10))
}

// checkDirs makes sure that directories are what they were when the job was
// recorded.
func (r *redriven) checkDirs(o *commandOptions, c *runtime.Command) error {
	if r == nil || r.spec.Settings.Command == nil {
		return nil
	}
	for i, d := range r.spec.Settings.Command.Dirs {
		if i >= len(c.Dirs) || c.Dirs[i].Guest != d.Guest {
			break // another job, as will be said
		}
		digest := c.Dirs[i].Tree.Digest()
		if err := r.check("directory "+d.Guest, o.dirs[i].host, "--with-dir HOST:GUEST", fmt.Sprintf("sha256:%x", digest), d.Digest); err != nil {
			return err
		}
	}
	return nil
}

// replaceDirs gives directories of a recorded job, as HOST:GUEST, the places
// where they are now.
func replaceDirs(recorded, now []string) ([]string, error) {
	dirs := slices.Clone(recorded)
	for _, value := range now {
		d, err := parseDir(value)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(dirs, func(r string) bool { return strings.HasSuffix(r, ":"+d.guest) })
		if i < 0 {
			return nil, refuse("--with-dir %s: the job has no directory %s", value, d.guest)
		}
		dirs[i] = d.String()
	}
	return dirs, nil
}

// absoluteDirs returns HOST:GUEST with hosts from the root on.
func absoluteDirs(values []string) (dirs []string) {
	for _, value := range values {
		if d, err := parseDir(value); err == nil {
			d.host = absolute(d.host)
			value = d.String()
		}
		dirs = append(dirs, value)
	}
	return dirs
}

// checkConcat refuses --concat where it has nothing to write.
func (o *runOptions) checkConcat(module host.Module) error {
	if o.files.concat && module.Exports(abi.ExportAggregate) {
		return refuse("--concat is of outputs, and the result of %s is its aggregate: leave it out", o.module)
	}
	return nil
}

// writeConcat writes the bytes of all outputs, which must be byte strings, one
// after another in id order.
func writeConcat(ctx context.Context, w *bufio.Writer, result *host.Result) error {
	for o, err := range result.Outputs(ctx) {
		if err != nil {
			return err
		}
		if err := writeBytes(w, o.ID, o.Output); err != nil {
			return err
		}
	}
	return nil
}

// writeBytes writes the bytes of one output.
func writeBytes(w *bufio.Writer, id abi.ID, output []byte) error {
	t := transcoder{rest: output}
	h := t.head()
	if h.Major != abi.MajorBytes {
		return fmt.Errorf("chunk %v: its output is no byte string, and --concat takes nothing else", id)
	}
	_, err := w.Write(t.bytes(h))
	return err
}
