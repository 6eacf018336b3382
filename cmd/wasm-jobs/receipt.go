package main

import (
	"bufio"
	"bytes"
	"errors"

	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

// checkReceipt checks, before anything runs, that a receipt can describe the job.
func (o *runOptions) checkReceipt(job *host.Job) error {
	if o.files.receipt == "" {
		return nil
	}
	settings := job.ReceiptSettings()
	if err := settings.Check(); err != nil {
		return usageErrorf("--receipt: %w", err)
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
	return parseReceipt(path, b)
}

func parseReceipt(path string, b []byte) (*receipt.Receipt, error) {
	r, err := receipt.Parse(b)
	foreign := notation.Foreign(b)
	switch {
	case err != nil && foreign != "":
		return nil, usageErrorf("%s: %w: %s", path, receipt.ErrForm, foreign)
	case errors.Is(err, receipt.ErrForm) && bytes.Contains(b, []byte("\r\n")):
		return nil, usageErrorf("%s: %w: its lines end with CR LF, want LF", path, receipt.ErrForm)
	case errors.Is(err, receipt.ErrForm):
		return nil, usageErrorf("%s: %w", path, err)
	}
	return r, err
}
