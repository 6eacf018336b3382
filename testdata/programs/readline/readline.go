// Package readline replaces a line editor that needs a terminal, because there is
// no terminal.
package readline

import "errors"

// ErrNoTerminal is the error of all functions.
var ErrNoTerminal = errors.New("no terminal")

// Instance has no lines.
type Instance struct{}

// New returns ErrNoTerminal.
func New(string) (*Instance, error) { return nil, ErrNoTerminal }

// SetPrompt does nothing.
func (*Instance) SetPrompt(string) {}

// Readline returns ErrNoTerminal.
func (*Instance) Readline() (string, error) { return "", ErrNoTerminal }

// Close does nothing.
func (*Instance) Close() error { return nil }
