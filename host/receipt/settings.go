package receipt

import (
	"crypto/sha256"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
)

// SettingsOf returns the settings of a job that can change a result. An unreadable
// digest becomes the zero digest: then the job's record does not describe the
// receipt's job.
func SettingsOf(j *spec.Spec) Settings {
	asked := &j.Settings
	s := Settings{Memory: asked.Memory, Stack: asked.OtherStack(), Metering: !asked.NoMetering, NaNs: CanonicalNaNs, Seed: asked.Seed}
	if asked.NativeNaNs {
		s.NaNs = NativeNaNs
	}
	if asked.Command != nil {
		s.setCommand(asked.Command)
	}
	var d Digest
	if d.UnmarshalText([]byte(j.Context)) == nil && d != sha256.Sum256(abi.Null) {
		s.Context = &d
	}
	return s
}

func (s *Settings) setCommand(c *spec.Command) {
	s.Args, s.Env = c.Args, c.Env
	if c.Stdin == spec.StdinCBOR {
		s.Stdin = StdinCBOR
	}
	for _, d := range c.Dirs {
		dir := Dir{Guest: d.Guest}
		_ = dir.Digest.UnmarshalText([]byte(d.Digest))
		s.Dirs = append(s.Dirs, dir)
	}
}
