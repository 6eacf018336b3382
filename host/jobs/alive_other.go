//go:build !unix

package jobs

import "os"

func processExists(pid int) bool {
	p, err := os.FindProcess(pid) // which fails where there is none
	if err != nil {
		return false
	}
	_ = p.Release()
	return true
}
