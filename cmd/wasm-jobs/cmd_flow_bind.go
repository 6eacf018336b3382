package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/flow/definition"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

// readDefinition reads the file of a flow. retry is for states without a policy.
func readDefinition(path string, retry queue.Policy) (*definition.Definition, error) {
	b, err := readBounded(path, definition.MaxSize, "a definition")
	if err != nil {
		return nil, err
	}
	d, err := definition.ParseFor(path, b, retry)
	if err != nil {
		return nil, usageErrorf("%w", err)
	}
	return d, nil
}

// binder binds a definition to its modules, which are files below its folder.
type binder struct {
	ctx      context.Context
	engine   *runtime.Runtime
	root     *os.Root // of the folder
	d        *definition.Definition
	defaults runtime.Settings // for states without settings of their own
	context  []byte
	modules  map[string]*boundModule // by path
	effects  func(s *definition.State) (flow.Executor, error)
}

type boundModule struct {
	*runtime.Module
	digest [sha256.Size]byte
}

// bind makes the flow of a definition. The root of the binder stays open.
func bind(ctx context.Context, engine *runtime.Runtime, d *definition.Definition, defaults runtime.Settings, effects func(*definition.State) (flow.Executor, error)) (*flow.Flow, []definition.Problem, error) {
	root, err := os.OpenRoot(filepath.Dir(d.File))
	if err != nil {
		return nil, nil, usageErrorf("%s: %w", d.File, err)
	}
	defer root.Close()
	b := &binder{ctx: ctx, engine: engine, root: root, d: d, defaults: defaults, modules: map[string]*boundModule{}, effects: effects}
	if b.context = defaults.Context; b.context == nil && d.Context != "" {
		if b.context, err = b.read(d.Context, maxContext, "a context"); err == nil {
			err = abi.CheckItem(b.context)
		}
		if err != nil {
			return nil, nil, usageErrorf("%s: context %s: %w", d.File, d.Context, err)
		}
	}
	f, doubts, err := d.Flow(b)
	if err != nil {
		return nil, doubts, usageErrorf("%w", err)
	}
	f.Digest = sha256.Sum256(d.Canonical(func(path string) [sha256.Size]byte { return b.modules[path].digest }))
	return f, doubts, nil
}

// read reads a file below the folder. Links that lead out of it are refused.
func (b *binder) read(path string, limit int64, what string) ([]byte, error) {
	file, err := b.root.Open(filepath.FromSlash(path))
	if err != nil {
		if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
			err = pathErr.Err
		}
		return nil, fmt.Errorf("%s: cannot be opened: %w", path, err)
	}
	defer file.Close()
	if stat, err := file.Stat(); err == nil && !stat.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: want a file with %s", path, what)
	}
	var out bytes.Buffer
	if _, err := out.ReadFrom(io.LimitReader(file, limit+1)); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if int64(out.Len()) > limit {
		return nil, fmt.Errorf("%s: larger than %d bytes, the limit for %s", path, limit, what)
	}
	return out.Bytes(), nil
}

// admit reads and checks a module.
func (b *binder) admit(path string) (*boundModule, error) {
	if m := b.modules[path]; m != nil {
		return m, nil
	}
	wasm, err := b.read(path, binary.MaxModuleSize, "a module")
	if err != nil {
		return nil, err
	}
	m, err := b.engine.Admit(b.ctx, wasm, runtime.Options{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	b.modules[path] = &boundModule{m, sha256.Sum256(wasm)}
	return b.modules[path], nil
}

// Module implements [definition.Binder].
func (b *binder) Module(s *definition.State, path string) (flow.Executor, error) {
	m, err := b.module(s, path)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Fold implements [definition.Binder].
func (b *binder) Fold(s *definition.State, path string) (flow.Folder, error) {
	folds := &definition.State{Name: s.Name, Timeout: -1, Memory: s.Memory}
	m, err := b.module(folds, path)
	switch {
	case err != nil:
		return nil, err
	case !m.Exports(abi.ExportAggregate):
		return nil, fmt.Errorf("%s: missing export aggregate: want a module that folds", path)
	}
	return m, nil
}

func (b *binder) module(s *definition.State, path string) (*flow.Module, error) {
	m, err := b.admit(path)
	if err != nil {
		return nil, err
	}
	if err := checkStdin(s); err != nil {
		return nil, err
	}
	settings := b.defaults
	settings.Seed, settings.Context = b.d.Seed, nil
	if m.Exports(abi.ExportSetup) {
		settings.Context = b.context
	}
	if s.Timeout >= 0 {
		settings.Timeout = s.Timeout
	}
	if s.Fuel > 0 {
		settings.Fuel = s.Fuel
	}
	if s.Memory > 0 {
		settings.Memory = s.Memory
	}
	if settings.Command, err = b.command(s); err != nil {
		return nil, err
	}
	if err := m.Fits(settings); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &flow.Module{Module: m.Module, Settings: settings}, nil
}

// command reads the arguments, environment and directories of a WASI command.
func (b *binder) command(s *definition.State) (c runtime.Command, err error) {
	if c.Args = s.Args; s.Stdin != "" {
		c.Stdin = runtime.Stdin(s.Stdin)
	}
	if c.Env, err = parseEnv(s.Env); err != nil {
		return c, err
	}
	for _, value := range s.Dirs {
		d, err := parseDir(value)
		if err != nil {
			return c, err
		}
		if !filepath.IsLocal(d.host) {
			return c, fmt.Errorf("invalid dirs: %s is outside the folder of the definition", d.host)
		}
		tree, err := wasi.ReadTree(b.ctx, filepath.Join(b.root.Name(), d.host), 256<<20)
		if err != nil {
			return c, err
		}
		c.Dirs = append(c.Dirs, wasi.Dir{Guest: d.guest, Tree: tree})
	}
	return c, nil
}

// Effect implements [definition.Binder].
func (b *binder) Effect(s *definition.State) (flow.Executor, error) {
	if s.Go != "" {
		return nil, fmt.Errorf("unknown function %q: only programs that embed flows have functions", s.Go)
	}
	return b.effects(s)
}

// flowDefaults are the settings of states without settings of their own.
func flowDefaults() runtime.Settings {
	return runtime.Settings{Timeout: 30 * time.Second, FoldTimeout: 10 * time.Minute}
}
