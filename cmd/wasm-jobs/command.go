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
	"github.com/wasm-jobs/wasm-jobs/host/notation"
	"github.com/wasm-jobs/wasm-jobs/host/outputs"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

// commandFlags are the flags for WASI commands, of each verb that calls modules.
func commandFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "arg", KeepSpace: true, Usage: "WASI command: an `ARGUMENT`; may be given again"},
		&cli.StringSliceFlag{Name: "env", KeepSpace: true, Usage: "WASI command: an environment variable `KEY=VALUE`, which is recorded with the job; may be given again"},
		&cli.StringFlag{Name: "stdin", Value: string(runtime.StdinRaw), Usage: "WASI command: its input is the content of a chunk that is a string (raw), or the CBOR of any chunk (cbor)"},
		&cli.StringSliceFlag{Name: "dir", KeepSpace: true, Usage: "WASI command: a directory `HOST:GUEST` that it may read, as it is at the start; may be given again"},
		&cli.StringFlag{Name: "max-dir", Value: "256MiB", Usage: "limit of all files of --dir together, which are held in memory"},
	}
}

// commandOptions are the options of a WASI command. Its directories are not read yet.
type commandOptions struct {
	runtime.Command
	dirs  []hostDir
	limit int64 // of all files in dirs, in bytes
}

// hostDir is a directory for guests.
type hostDir struct{ host, guest string }

func (d hostDir) String() string { return d.host + ":" + d.guest }

func parseCommand(ctx *cli.Context) (o commandOptions, err error) {
	o.Args, o.Stdin = ctx.StringSlice("arg"), runtime.Stdin(ctx.String("stdin"))
	if o.Stdin != runtime.StdinRaw && o.Stdin != runtime.StdinCBOR {
		return o, usageErrorf("invalid --stdin %q: want raw or cbor", o.Stdin)
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

// parseDirs reads only the flags of directories.
func parseDirs(ctx *cli.Context) (o commandOptions, err error) {
	for _, value := range ctx.StringSlice("dir") {
		d, err := parseDir(value)
		if err != nil {
			return o, err
		}
		if slices.ContainsFunc(o.dirs, func(other hostDir) bool { return other.guest == d.guest }) {
			return o, usageErrorf("duplicate --dir %s: give each directory its own guest path", d.guest)
		}
		o.dirs = append(o.dirs, d)
	}
	o.limit, err = parseSize[int64](ctx, "max-dir")
	return o, err
}

// parseEnv returns an environment in the order of its keys, so that the order of the
// flags does not change an output.
func parseEnv(pairs []string) ([]string, error) {
	keys := map[string]bool{}
	for _, pair := range pairs {
		key, _, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, usageErrorf("invalid --env %q: want KEY=VALUE", pair)
		}
		if keys[key] {
			return nil, usageErrorf("duplicate --env %s", key)
		}
		keys[key] = true
	}
	return slices.Sorted(slices.Values(pairs)), nil
}

// parseDir splits at the last colon, because a Windows path may have an earlier one.
func parseDir(value string) (hostDir, error) {
	i := strings.LastIndexByte(value, ':')
	if i < 1 || i == len(value)-1 {
		return hostDir{}, usageErrorf("invalid --dir %q: want HOST:GUEST, such as ./data:/data", value)
	}
	return hostDir{value[:i], path.Clean(value[i+1:])}, nil
}

// read reads the directories.
func (o *commandOptions) read(ctx context.Context) (runtime.Command, error) {
	c, left := o.Command, o.limit
	for _, d := range o.dirs {
		tree, err := wasi.ReadTree(ctx, d.host, left)
		if over, ok := errors.AsType[*wasi.TreeLimitError](err); ok && over.Bytes > 0 {
			return c, usageErrorf("--dir %s: too large: the files of all --dir have more than %d bytes; --max-dir raises the limit", d.host, o.limit)
		}
		if ctx.Err() != nil {
			return c, host.ErrInterrupted
		}
		if err != nil {
			return c, usageErrorf("--dir %s: %w", d.host, err)
		}
		left -= tree.Bytes()
		c.Dirs = append(c.Dirs, wasi.Dir{Guest: d.guest, Tree: tree})
	}
	return c, nil
}

// flags returns the flags that give o.
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

// checkDirs returns an error if a directory has changed since the job was recorded.
func (r *redriven) checkDirs(o *commandOptions, c *runtime.Command) error {
	if r == nil || r.asked.Settings.Command == nil {
		return nil
	}
	for i, d := range r.asked.Settings.Command.Dirs {
		digest := spec.Digest(c.Dirs[i].Tree.Digest())
		if err := r.check("directory "+d.Guest, o.dirs[i].host, "--with-dir HOST:GUEST", digest, d.Digest); err != nil {
			return err
		}
	}
	return nil
}

// readDirs returns the directories of the job. --with-dir overrides the recorded paths.
func (r *redriven) readDirs(now []string) (dirs []hostDir, err error) {
	if c := r.asked.Settings.Command; c != nil {
		for _, d := range c.Dirs {
			dirs = append(dirs, hostDir{r.asked.Sources.Dirs[d.Guest], d.Guest})
		}
	}
	for _, value := range now {
		d, err := parseDir(value)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(dirs, func(recorded hostDir) bool { return recorded.guest == d.guest })
		if i < 0 {
			return nil, usageErrorf("unknown --with-dir %s: the job has no directory %s", value, d.guest)
		}
		dirs[i] = d
	}
	for _, d := range dirs {
		if d.host == "" {
			return nil, usageErrorf("job %s: unknown host directory for %s: give it with --with-dir HOST:%s", r.name(), d.guest, d.guest)
		}
	}
	return dirs, nil
}

// checkConcat refuses --concat if the result is an aggregate.
func (o *runOptions) checkConcat(module host.Module) error {
	if o.files.concat && module.Exports(abi.ExportAggregate) {
		return usageErrorf("invalid --concat: %s exports aggregate, so the job's result is its aggregate; leave --concat out", o.module)
	}
	return nil
}

// writeConcat writes the bytes of all outputs, which must be byte strings, in id order.
func writeConcat(w *bufio.Writer, all outputs.Seq) error {
	for o, err := range all {
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
	contents, major, _ := notation.Contents(output)
	if major != abi.MajorBytes {
		return fmt.Errorf("chunk %v: --concat wants outputs that are byte strings", id)
	}
	_, err := w.Write(contents)
	return err
}
