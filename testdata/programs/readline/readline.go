// Package readline takes the place of a line editor that needs a terminal: there
// is none.
package readline

import "errors"

// ErrNoTerminal is what everything returns.
var ErrNoTerminal = errors.New("no terminal")

// Instance has no lines.
type Instance struct{}

// New refuses.
func New(string) (*Instance, error) { return nil, ErrNoTerminal }

// SetPrompt does nothing.
func (*Instance) SetPrompt(string) {}

// Readline has no line.
func (*Instance) Readline() (string, error) { return "", ErrNoTerminal }

// Close does nothing.
func (*Instance) Close() error { return nil }
