package atomicfile

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
)

// The name of a temporary file identifies the process that made it: its machine, its
// id, and its start time if it is known, because ids are reused.
//
//	.BASE.wasm-jobs-MACHINE-ID-START-RANDOM

// maxTempBase is how many bytes of a file's name its temporary file repeats. It keeps
// the name within the 255 bytes that file systems allow.
const maxTempBase = 190

var tempPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^\..*\.wasm-jobs-([a-z2-7]{8})-([1-9][0-9]{0,9})-([0-9]{1,20})-[A-Z2-7]{13}$`)
})

func tempName(path string) string {
	return filepath.Join(filepath.Dir(path), TempName(filepath.Base(path)))
}

// TempName returns a new name for the temporary file of a file with the given name.
// [Sweep] removes it after this process has died.
func TempName(name string) string {
	return "." + name[:min(len(name), maxTempBase)] + ".wasm-jobs-" +
		machine() + "-" + strconv.Itoa(os.Getpid()) + "-" + ownStart() + "-" + rand.Text()[:13]
}

var ownStart = sync.OnceValue(func() string { return strconv.FormatUint(processStart(os.Getpid()), 10) })

// machine identifies the scope of process ids: a host, and its namespace of ids,
// because several containers may write to one directory.
var machine = sync.OnceValue(func() string {
	host, _ := os.Hostname()
	digest := sha256.Sum256([]byte(host + "\x00" + idNamespace()))
	const lower = "abcdefghijklmnopqrstuvwxyz234567"
	return base32.NewEncoding(lower).EncodeToString(digest[:5])
})

var (
	sweptMu sync.Mutex
	swept   = map[string]bool{} // directories
)

// Sweep removes the temporary files that dead processes of this machine left in
// a directory, once for each directory. It ignores errors.
func Sweep(dir string) {
	sweptMu.Lock()
	defer sweptMu.Unlock()
	if swept[dir] {
		return
	}
	swept[dir] = true
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(1024)
		for _, name := range names {
			if isLeftover(name) {
				removeRegular(filepath.Join(dir, name))
			}
		}
		if err != nil {
			return
		}
	}
}

func removeRegular(path string) {
	if stat, err := os.Lstat(path); err == nil && stat.Mode()&fs.ModeType == 0 {
		os.Remove(path)
	}
}

// isLeftover reports whether name is the name of a temporary file of a dead process of
// this machine.
func isLeftover(name string) bool {
	m := tempPattern().FindStringSubmatch(name)
	if m == nil || m[1] != machine() {
		return false
	}
	id, err := strconv.Atoi(m[2])
	start, startErr := strconv.ParseUint(m[3], 10, 64)
	return err == nil && startErr == nil && id != os.Getpid() && !isAlive(id, start)
}
