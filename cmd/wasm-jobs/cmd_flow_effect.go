package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/flow/definition"
	"github.com/wasm-jobs/wasm-jobs/flow/effects"
)

// newEffect returns the executor of a state's effects.
func newEffect(s *definition.State) (flow.Executor, error) {
	timeout := s.Timeout
	if timeout < 0 {
		timeout = 30 * time.Second
	}
	if s.Effect == "command" {
		return &effects.Command{Args: s.Command, Env: s.Env, Stdin: s.Stdin, RetryExit: s.RetryExit, Timeout: timeout}, nil
	}
	for _, allowed := range s.Allow {
		if err := effects.CheckAllowed(allowed); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		if err := effects.CheckHeader(name, s.Headers[name]); err != nil {
			return nil, err
		}
	}
	return &effects.HTTP{Allow: s.Allow, Headers: s.Headers, RetryStatus: s.RetryStatus, Timeout: timeout}, nil
}

func asInvalid(err error) (*definition.InvalidError, bool) {
	return errors.AsType[*definition.InvalidError](err)
}

// checkStdin refuses forms of standard input that the kind of state does not support.
func checkStdin(s *definition.State) error {
	if s.Module != "" && s.Stdin != "" && s.Stdin != "raw" && s.Stdin != "cbor" {
		return fmt.Errorf("invalid stdin %q: want raw or cbor for a module", s.Stdin)
	}
	return nil
}
