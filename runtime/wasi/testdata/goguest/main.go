// Command goguest prints all that a Go guest can find out about its machine. The
// test of package wasi builds it for GOOS=wasip1 GOARCH=wasm.
package main

import (
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

func main() {
	clocks()
	chance()
	sleepers()
	machine()
	input, err := io.ReadAll(os.Stdin)
	fmt.Printf("stdin %q %v\n", input, err)
	fmt.Fprintln(os.Stderr, "the end")
	os.Exit(len(input))
}

func clocks() {
	start := time.Now()
	fmt.Println("now", start.UTC().Format(time.RFC3339Nano), time.Local)
	time.Sleep(90 * time.Minute)
	fmt.Println("slept", time.Since(start) >= 90*time.Minute, time.Now().UTC())
	select {
	case <-time.After(time.Hour):
		fmt.Println("timer", time.Since(start))
	case <-make(chan int):
	}
}

func chance() {
	fmt.Println("math", rand.Uint64(), rand.Perm(10))
	secret := make([]byte, 1000)
	crand.Read(secret)
	fmt.Printf("crypto %x\n", secret)
	numbers := map[int]string{}
	for i := range 50 {
		numbers[i] = fmt.Sprint(i)
	}
	for n := range numbers {
		fmt.Print(n, " ")
	}
	fmt.Println("map")
}

// sleepers makes goroutines wake each other, for which the scheduler uses
// poll_oneoff.
func sleepers() {
	order := make(chan int)
	for i := range 10 {
		go func() {
			time.Sleep(time.Duration(10-i) * time.Second)
			order <- i
		}()
	}
	for range 10 {
		fmt.Print(<-order, " ")
	}
	ticker := time.NewTicker(time.Minute)
	for range 3 {
		<-ticker.C
	}
	ticker.Stop()
	fmt.Println("woken", time.Now().UTC())
}

func machine() {
	fmt.Printf("args %q env %q pid %d\n", os.Args, os.Environ(), os.Getpid())
	host, err := os.Hostname()
	fmt.Printf("host %q %v\n", host, err)
	wd, err := os.Getwd()
	fmt.Printf("directory %q %v\n", wd, err)
	files, err := filepath.Glob("/*")
	fmt.Println("files", files, err)
	for _, path := range []string{"/etc/passwd", "x", "/dev/urandom"} {
		_, err := os.Open(path)
		fmt.Println("open", errors.Is(err, os.ErrExist), err)
	}
	fmt.Println("create", os.WriteFile("x", nil, 0o600))
	for _, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		info, err := f.Stat()
		if err != nil {
			fmt.Println("stat", err)
			continue
		}
		_, err = f.Seek(0, io.SeekCurrent)
		fmt.Println("stat", info.Name(), info.Mode(), info.Size(), info.ModTime().UTC(), err, f.Sync())
	}
}
