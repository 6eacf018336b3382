//go:build !unix

package journal

import "os"

func processExists(pid int) bool {
	p, err := os.FindProcess(pid) // fails if there is no such process
	if err != nil {
		return false
	}
	_ = p.Release()
	return true
}
