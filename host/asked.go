package host

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/wasm-jobs/wasm-jobs/host/action"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// JobOf returns the job that a spec describes, for example the spec in the
// record of a stored job ([journal.Record.Spec]), to run it again. The caller
// adds the parts that a spec does not hold: Module, Chunks, the bytes of
// Settings.Context and the trees of Settings.Command.Dirs. A run with [Redrive]
// checks that they belong to the job.
func JobOf(asked *spec.Spec) *Job {
	s := &asked.Settings
	j := &Job{
		About: About{
			Name: asked.Name, Meta: asked.Meta, Priority: asked.Priority,
			ModulePath: asked.Module.Path, ChunksPath: asked.Chunks.Path, Sources: asked.Sources,
		},
		Options: runtime.Options{NoMetering: s.NoMetering, NativeNaNs: s.NativeNaNs},
		Settings: runtime.Settings{
			Seed: s.Seed, Memory: s.Memory, Stack: s.Stack, MaxOutput: s.MaxOutput, MaxAggregate: s.MaxAggregate,
			Fuel: s.Fuel, Timeout: s.Timeout, FoldTimeout: s.FoldTimeout, Isolation: runtime.Isolation(s.Isolation),
		},
		Retry:       RetryPolicy(s.Retry),
		MaxFailures: s.MaxFailures, NoFold: s.NoFold,
	}
	if c := s.Command; c != nil {
		j.Settings.Command = runtime.Command{Args: c.Args, Env: c.Env, Stdin: runtime.Stdin(c.Stdin)}
	}
	return j
}

// Spec returns the description of the job that is recorded, with the defaults
// filled in. Without Chunks, their digest and number are missing.
func (j *Job) Spec() *spec.Spec {
	if j.Admitted != nil {
		return j.specOf(j.Admitted.Digest(), fixesOf(j.Admitted))
	}
	return j.specOf(sha256.Sum256(j.Module), runtime.EngineFixes(j.Module, j.Options))
}

// fixesOf returns the version of the engine fixes that affect a module.
func fixesOf(m Module) int {
	if d := m.Description(); d != nil {
		return d.EngineFixes
	}
	return 0
}

// specOf returns the spec, with the given digest of the module and the fixes
// that affect it.
func (j *Job) specOf(module [sha256.Size]byte, fixes int) *spec.Spec {
	asked := j.asked()
	asked.Settings.EngineFixes = fixes
	asked.Module = spec.File{Path: j.ModulePath, Digest: digest(module), Size: int64(len(j.Module))}
	asked.Chunks = spec.File{Path: j.ChunksPath}
	if j.Chunks != nil {
		asked.Chunks.Digest, asked.Total = digest(j.Chunks.Digest()), j.Chunks.Len()
	}
	if asked.Name == "" {
		asked.Name = hex.EncodeToString(module[:6])
	}
	if asked.Sources == nil && j.ChunksPath != "" {
		asked.Sources = &spec.Sources{Chunks: spec.Chunks{Kind: spec.KindFile, Path: j.ChunksPath}}
	}
	return asked
}

// asked returns the spec without module and chunks, which need not be set.
func (j *Job) asked() *spec.Spec {
	asked := &spec.Spec{Name: j.Name, Meta: j.Meta, Priority: j.Priority, Settings: j.settings(), Sources: j.Sources}
	if len(j.Settings.Context) > 0 {
		asked.Context, asked.ContextSize = digest(sha256.Sum256(j.Settings.Context)), int64(len(j.Settings.Context))
	}
	return asked
}

// settings returns the settings of the job's spec.
func (j *Job) settings() spec.Settings {
	settings := action.Settings(j.Options, &j.Settings)
	settings.Retry, settings.MaxFailures, settings.NoFold = specRetry(&j.Retry), j.MaxFailures, j.NoFold
	return settings
}

// specRetry returns the spec of a policy, with the defaults filled in.
func specRetry(p *RetryPolicy) spec.Retry {
	r := spec.Retry(*p)
	if r.Classes == nil {
		r.Classes = DefaultRetryClasses()
	}
	return r
}

// ReceiptSettings returns the settings that can change a result, with the
// defaults filled in. The key of the job's outputs is made of the same
// settings.
func (j *Job) ReceiptSettings() receipt.Settings { return receipt.SettingsOf(j.asked()) }

// action returns the key of the job's outputs, for the given digest of the
// module and the fixes that affect it.
func (j *Job) action(module [sha256.Size]byte, fixes int) store.Action {
	return action.Of(module, fixes, j.Options, &j.Settings)
}
