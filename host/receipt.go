package host

import (
	"bytes"
	"crypto/sha256"
	"errors"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// ErrNoReceipt says that a job has not come to the end that a receipt is of:
// chunks failed or were not run, or there is no aggregate where the module has
// one.
var ErrNoReceipt = errors.New("there is no receipt of a job that did not succeed")

// ReceiptSettings returns the settings that can change a result, with the
// defaults filled in. They are those that key the job's outputs.
func (j *Job) ReceiptSettings() receipt.Settings {
	s := receipt.Settings{
		Memory: j.Settings.Memory, Metering: !j.Options.NoMetering, NaNs: receipt.CanonicalNaNs, Seed: j.Settings.Seed,
	}
	if s.Memory == 0 {
		s.Memory = runtime.DefaultMemory
	}
	if j.Options.NativeNaNs {
		s.NaNs = receipt.NativeNaNs
	}
	c := &j.Settings.Command
	s.Args, s.Env = c.Args, c.Env
	if c.Stdin == runtime.StdinCBOR {
		s.Stdin = receipt.StdinCBOR
	}
	for _, d := range c.Dirs {
		s.Dirs = append(s.Dirs, receipt.Dir{Digest: d.Tree.Digest(), Guest: d.Guest})
	}
	if c := j.Settings.Context; len(c) > 0 && !bytes.Equal(c, abi.Null) {
		digest := receipt.Digest(sha256.Sum256(c))
		s.Context = &digest
	}
	return s
}

// ReceiptEngine says what this program runs jobs with.
func ReceiptEngine() receipt.Engine {
	return receipt.Engine{ABI: abi.Version, Metering: runtime.MeteringVersion, Wazero: runtime.EngineVersion()}
}

// Receipt returns the job's receipt. It is the same whatever the number of
// workers, the retries, resumes and the isolation. The error is [ErrNoReceipt].
func (res *Result) Receipt() (*receipt.Receipt, error) {
	n := &res.Report.Chunks
	if !res.hashed || n.Succeeded != n.Total || res.run.module.Exports(abi.ExportAggregate) && res.Aggregate == nil {
		return nil, ErrNoReceipt
	}
	r := &receipt.Receipt{
		Version: receipt.Version, Module: res.run.module.Digest(), Chunks: uint64(n.Total), Input: res.run.Chunks.Digest(),
		Settings: res.run.ReceiptSettings(), Engine: ReceiptEngine(), Outputs: res.outputs, Fuel: res.Report.Fuel,
	}
	if res.Aggregate != nil {
		digest := receipt.Digest(sha256.Sum256(res.Aggregate))
		r.Aggregate = &digest
	}
	return r, nil
}
