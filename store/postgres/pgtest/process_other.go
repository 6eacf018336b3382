//go:build !linux

package pgtest

import (
	"os/exec"
	"time"
)

func own(string) error { return nil }

func unprivileged(*exec.Cmd) {}

func startTied(c *exec.Cmd) error { return c.Start() }

// CPU is only known on Linux.
func (s *Server) CPU() time.Duration { return 0 }
