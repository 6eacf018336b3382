//go:build !unix

package effects

import "os/exec"

func inGroup(*exec.Cmd) {}

func killGroup(*exec.Cmd) {}
