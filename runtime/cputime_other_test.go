//go:build !linux

package runtime_test

import "time"

var began = time.Now()

// threadTime returns the elapsed time, because the processor time of a thread
// is unknown here.
func threadTime() time.Duration { return time.Since(began) }

// processTime returns the elapsed time too.
func processTime() time.Duration { return time.Since(began) }
