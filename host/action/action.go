// Package action derives the recorded settings of a call, and the key under which a
// store keeps its output. Jobs and requests share the keys, so that each finds the
// outputs of the other.
package action

import (
	"crypto/sha256"

	"github.com/wasm-jobs/wasm-jobs/host/spec"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Of returns the action of calls of the module with a digest. fixes are its
// [runtime.Description.EngineFixes]. Defaults of s are filled in.
func Of(module [sha256.Size]byte, fixes int, o runtime.Options, s *runtime.Settings) store.Action {
	asked := spec.Spec{Module: spec.File{Digest: spec.Digest(module)}, Settings: Settings(o, s)}
	asked.Settings.EngineFixes = fixes
	if len(s.Context) > 0 {
		asked.Context = spec.Digest(sha256.Sum256(s.Context))
	}
	return asked.Action()
}

// Settings returns the settings of calls as a spec has them. Settings of jobs only,
// such as retries and the limit of failed chunks, are not set.
func Settings(o runtime.Options, s *runtime.Settings) spec.Settings {
	settings := spec.Settings{
		Seed: s.Seed, NativeNaNs: o.NativeNaNs, NoMetering: o.NoMetering, Isolation: string(s.Isolation),
		Limits: spec.Limits{
			Memory: s.Memory, Stack: s.Stack, Fuel: s.Fuel, Timeout: s.Timeout, FoldTimeout: s.FoldTimeout, MaxOutput: s.MaxOutput, MaxAggregate: s.MaxAggregate,
		},
		Command: command(&s.Command),
	}
	settings.Stack = settings.OtherStack() // records of the default stay as they were
	if settings.Memory == 0 {
		settings.Memory = runtime.DefaultMemory
	}
	if !settings.NoMetering {
		settings.Metering = runtime.MeteringVersion
	}
	return settings
}

// command returns nil for the default command: a module has the same action whether
// the default is given or not.
func command(c *runtime.Command) *spec.Command {
	command := &spec.Command{Args: c.Args, Env: c.Env, Stdin: string(c.Stdin)}
	if command.Stdin == "" {
		command.Stdin = spec.StdinRaw
	}
	for _, d := range c.Dirs {
		dir := spec.Dir{Guest: d.Guest}
		if d.Tree != nil { // if it is nil, Admit rejects the module
			dir.Digest, dir.Files, dir.Bytes = spec.Digest(d.Tree.Digest()), d.Tree.Files(), d.Tree.Bytes()
		}
		command.Dirs = append(command.Dirs, dir)
	}
	if len(command.Args)+len(command.Env)+len(command.Dirs) == 0 && command.Stdin == spec.StdinRaw {
		return nil
	}
	return command
}
