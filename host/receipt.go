package host

import (
	"crypto/sha256"
	"errors"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// ErrNoReceipt is returned if a job did not reach the end that a receipt
// attests: chunks failed or were not run, or the module exports aggregate and
// it did not succeed.
var ErrNoReceipt = errors.New("there is no receipt of a job that did not succeed")

// ReceiptEngine describes the engine of this program, for any module. See
// [Result.Engine].
func ReceiptEngine() receipt.Engine {
	return receipt.Engine{ABI: abi.Version, Metering: runtime.MeteringVersion, Wazero: runtime.EngineVersion()}
}

// Engine describes the engine that ran the job, with the fixes that affect the
// module.
func (res *Result) Engine() receipt.Engine {
	e := ReceiptEngine()
	if res.module != nil {
		e.Fixes = fixesOf(res.module)
	}
	return e
}

// Receipt returns the job's receipt. It does not depend on the number of
// workers, retries, resumes or the isolation. The error is [ErrNoReceipt].
func (res *Result) Receipt() (*receipt.Receipt, error) {
	n := &res.Report.Chunks
	if !res.hashed || n.Succeeded != n.Total || res.module.Exports(abi.ExportAggregate) && res.Aggregate == nil {
		return nil, ErrNoReceipt
	}
	r := &receipt.Receipt{
		Version: receipt.Version, Module: res.module.Digest(), Chunks: uint64(n.Total), Input: res.job.Chunks.Digest(),
		Settings: res.job.ReceiptSettings(), Engine: res.Engine(), Outputs: res.root, Fuel: res.Report.Fuel,
	}
	if res.Aggregate != nil {
		digest := receipt.Digest(sha256.Sum256(res.Aggregate))
		r.Aggregate = &digest
	}
	return r, nil
}
