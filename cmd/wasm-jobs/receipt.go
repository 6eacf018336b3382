package main

import (
	"bufio"
	"errors"

	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

// checkReceipt makes sure, before anything runs, that a receipt can say what the
// job is.
func (o *runOptions) checkReceipt(job *host.Job) error {
	if o.files.receipt == "" {
		return nil
	}
	settings := job.ReceiptSettings()
	if err := settings.Check(); err != nil {
		return refuse("--receipt: %w", err)
	}
	return nil
}

func writeReceipt(w *bufio.Writer, result *host.Result) error {
	r, err := result.Receipt()
	if err != nil {
		return err
	}
	b, err := r.Marshal()
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

// readReceipt reads a receipt's file.
func readReceipt(path string) (*receipt.Receipt, error) {
	b, err := readBounded(path, receipt.MaxSize, "a receipt")
	if err != nil {
		return nil, err
	}
	r, err := receipt.Parse(b)
	if errors.Is(err, receipt.ErrForm) {
		return nil, refuse("%s: %w", path, err)
	}
	return r, err
}
