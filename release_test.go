package wasmjobs_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// needs skips the test if this is not Linux, or a program is missing.
func needs(t *testing.T, packages map[string]string) {
	t.Helper()
	if testing.Short() || runtime.GOOS != "linux" {
		t.Skip("builds a release, on Linux")
	}
	for program, from := range packages {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("missing %s: on Debian, apt-get install %s", program, from)
		}
	}
}

func runIn(t *testing.T, dir string, env []string, words ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", words, err, out)
	}
	return string(out)
}

// TestSnapshot makes a release for this system, installs its deb and its archive in clean
// directories, runs a job with each, and signs the checksums.
func TestSnapshot(t *testing.T) {
	needs(t, map[string]string{"dpkg-deb": "dpkg", "tar": "tar", "gzip": "gzip"})
	out := t.TempDir()
	runIn(t, ".", append(os.Environ(), "OUT="+out, "SYSTEMS=linux/"+runtime.GOARCH, "VERSION=1.2.3"), "release/snapshot")
	base := "wasm-jobs_1.2.3_linux_" + runtime.GOARCH
	deb, archive := t.TempDir(), t.TempDir()
	runIn(t, deb, os.Environ(), "dpkg-deb", "-x", filepath.Join(out, base+".deb"), ".")
	runIn(t, archive, os.Environ(), "tar", "-xzf", filepath.Join(out, base+".tar.gz"))
	installed := filepath.Join(deb, "usr", "bin", "wasm-jobs")
	checkJob(t, installed)
	checkJob(t, filepath.Join(archive, base, "wasm-jobs"))
	for _, name := range []string{"doc/wasm-jobs/copyright", "man/man1/wasm-jobs.1.gz", "man/man1/wasm-jobs-run.1.gz", "bash-completion/completions/wasm-jobs", "zsh/vendor-completions/_wasm-jobs", "fish/vendor_completions.d/wasm-jobs.fish"} {
		for _, share := range []string{filepath.Join(deb, "usr", "share"), filepath.Join(archive, base, "share")} {
			if stat, err := os.Stat(filepath.Join(share, filepath.FromSlash(name))); err != nil || stat.Size() < 100 {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if control := runIn(t, out, os.Environ(), "dpkg-deb", "-f", base+".deb", "Version"); control != "1.2.3\n" {
		t.Errorf("the deb has version %q", control)
	}
	rpm, err := os.ReadFile(filepath.Join(out, base+".rpm"))
	if err != nil || !bytes.HasPrefix(rpm, []byte{0xed, 0xab, 0xee, 0xdb}) {
		t.Errorf("not an rpm: %v", err)
	}
	checkChecksums(t, out, []string{base + ".cdx.json", base + ".deb", base + ".rpm", base + ".tar.gz"})
	checkReleaseSignature(t, out, installed)
}

// checkJob runs a job with no environment but a home.
func checkJob(t *testing.T, command string) {
	t.Helper()
	home := t.TempDir()
	module := readText(t, "guest-examples/square/c/square.wasm")
	for name, contents := range map[string]string{"module.wasm": module, "chunks.cbor": "\x02\x03"} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(contents), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := runIn(t, home, []string{"HOME=" + home}, command, "run", "--progress", "none", "-o", "result.cbor", "module.wasm", "chunks.cbor")
	result, err := os.ReadFile(filepath.Join(home, "result.cbor"))
	if err != nil || string(result) != "\x0d" { // 2*2 + 3*3
		t.Errorf("%s: result %x, %v\n%s", command, result, err, got)
	}
}

// checkChecksums checks checksums.txt, and that the formula has the archive's digest.
func checkChecksums(t *testing.T, dir string, want []string) {
	t.Helper()
	var names []string
	formula := readText(t, filepath.Join(dir, "wasm-jobs.rb"))
	for line := range strings.Lines(readText(t, filepath.Join(dir, "checksums.txt"))) {
		digest, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		names = append(names, name)
		if sum := fmt.Sprintf("%x", sha256.Sum256([]byte(readText(t, filepath.Join(dir, name))))); sum != digest {
			t.Errorf("%s: checksum %s, want %s", name, digest, sum)
		}
		if strings.HasSuffix(name, ".tar.gz") && !strings.Contains(formula, `sha256 "`+digest+`"`) {
			t.Errorf("the formula does not have the digest of %s\n%s", name, formula)
		}
	}
	if !slices.Equal(names, want) {
		t.Errorf("files %v, want %v", names, want)
	}
	if inventory := readText(t, filepath.Join(dir, want[0])); !strings.Contains(inventory, "github.com/tetratelabs/wazero") {
		t.Errorf("%s does not list the engine", want[0])
	}
}

// checkReleaseSignature signs the checksums with a new key, and verifies them as
// docs/install.md says.
func checkReleaseSignature(t *testing.T, dir, command string) {
	t.Helper()
	echo, err := filepath.Abs("testdata/wasm/echo.wasm")
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("release/sign")
	if err != nil {
		t.Fatal(err)
	}
	runIn(t, dir, os.Environ(), command, "keygen", "-o", "key")
	env := append(os.Environ(), "RELEASE_KEY="+readText(t, filepath.Join(dir, "key")))
	runIn(t, dir, env, script, command, "checksums.txt", "checksums.txt.sig.json")
	runIn(t, dir, os.Environ(), command, "verify-signature", "checksums.txt.sig.json", "--key", "key.pub", "--receipt", "checksums.txt.receipt.json")
	runIn(t, dir, os.Environ(), command, "verify", "--lines", "checksums.txt", "checksums.txt.receipt.json", echo)
	changed := strings.Replace(readText(t, filepath.Join(dir, "checksums.txt")), ".deb", ".dab", 1)
	if err := os.WriteFile(filepath.Join(dir, "checksums.txt"), []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(command, "verify", "--lines", filepath.Join(dir, "checksums.txt"), filepath.Join(dir, "checksums.txt.receipt.json"), echo).CombinedOutput(); err == nil {
		t.Errorf("changed checksums are accepted\n%s", out)
	}
}

// imageJob runs the image's files as a container would: another root, read-only, without a
// network, as the image's user. $1 is the root, $2 the folder of the job.
const imageJob = `set -e
mount --bind "$1" "$1"
mount --bind "$2" "$1/work"
mount -o remount,ro,bind "$1/work"
mount -o remount,ro,bind "$1"
exec chroot --userspec=65532:65532 "$1" /usr/bin/wasm-jobs run --no-store --progress none /work/module.wasm /work/chunks.cbor
`

// TestImage builds the image and runs a job in it.
func TestImage(t *testing.T) {
	needs(t, map[string]string{"buildah": "buildah", "unshare": "util-linux", "chroot": "coreutils"})
	if os.Geteuid() != 0 {
		t.Skip("mounting the image wants root")
	}
	dir, job := t.TempDir(), t.TempDir()
	storage := fmt.Sprintf("[storage]\ndriver = \"vfs\"\nrunroot = %q\ngraphroot = %q\n", filepath.Join(dir, "run"), filepath.Join(dir, "graph"))
	for path, contents := range map[string]string{
		filepath.Join(dir, "storage.conf"): storage,
		filepath.Join(job, "module.wasm"):  readText(t, "guest-examples/square/c/square.wasm"),
		filepath.Join(job, "chunks.cbor"):  "\x02\x03",
	} {
		if err := os.WriteFile(path, []byte(contents), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(job, 0o755); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "CONTAINERS_STORAGE_CONF="+filepath.Join(dir, "storage.conf"), "BUILDAH_ISOLATION=chroot", "BUILDER=buildah", "ARCH="+runtime.GOARCH, "VERSION=test")
	runIn(t, ".", env, "release/image")
	config := runIn(t, ".", env, "buildah", "inspect", "--type", "image", "--format", "{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}}", "localhost/wasm-jobs:test")
	if config != "65532:65532 [/usr/bin/wasm-jobs]" {
		t.Errorf("user and entry point are %q", config)
	}
	container := strings.TrimSpace(runIn(t, ".", env, "buildah", "from", "--pull-never", "localhost/wasm-jobs:test"))
	root := strings.TrimSpace(runIn(t, ".", env, "buildah", "mount", container))
	t.Cleanup(func() { exec.Command("umount", root).Run() })
	got := runIn(t, ".", os.Environ(), "unshare", "--net", "--mount", "sh", "-c", imageJob, "sh", root, job)
	if !strings.HasPrefix(got, "13\n") {
		t.Errorf("the job printed %q, want 13", got)
	}
}

// goreleaser is the part of .goreleaser.yaml that the tests use.
type goreleaser struct {
	Builds []struct {
		Goos, Goarch, Tags, Ldflags, Flags []string
	}
	Nfpms []struct {
		Maintainer, Description, Homepage, License, Section string
		Formats                                             []string
		Contents                                            []any
	}
}

// TestGoreleaser checks that releases on a tag are made as snapshots are: the same
// systems, flags of the build and contents of packages.
func TestGoreleaser(t *testing.T) {
	var g goreleaser
	if err := yaml.Unmarshal([]byte(readText(t, ".goreleaser.yaml")), &g); err != nil {
		t.Fatal(err)
	}
	var p struct {
		Maintainer, Description, Homepage, License, Section string
		Contents                                            []any
	}
	if err := yaml.Unmarshal([]byte(readText(t, "release/nfpm.yaml")), &p); err != nil {
		t.Fatal(err)
	}
	b, n := g.Builds[0], g.Nfpms[0]
	var systems []string
	for _, goos := range b.Goos {
		for _, arch := range b.Goarch {
			systems = append(systems, goos+"/"+arch)
		}
	}
	snapshot, build := readText(t, "release/snapshot"), readText(t, "release/build")
	if !strings.Contains(snapshot, ":="+strings.Join(systems, " ")+"}") {
		t.Errorf("release/snapshot does not have the systems %v", systems)
	}
	for _, flag := range slices.Concat(b.Flags, b.Ldflags, b.Tags) {
		if !strings.Contains(build, flag) {
			t.Errorf("release/build does not have %s", flag)
		}
	}
	if n.Maintainer != p.Maintainer || n.Description != p.Description || n.Homepage != p.Homepage || n.License != p.License || n.Section != p.Section {
		t.Errorf("the packages differ:\n%+v\n%+v", n, p)
	}
	// Files that git does not ignore mark the binaries that are built after them as dirty.
	if !strings.Contains(readText(t, ".gitignore"), "\n/dist/\n") {
		t.Error(".gitignore does not have /dist/, which goreleaser makes")
	}
	// goreleaser adds the binary itself.
	if !slices.Equal(n.Formats, []string{"deb", "rpm"}) || len(n.Contents)+1 != len(p.Contents) || fmt.Sprint(n.Contents) != fmt.Sprint(p.Contents[1:]) {
		t.Errorf("the packages have other contents:\n%v\n%v", n.Contents, p.Contents)
	}
}

var workflowUses = regexp.MustCompile(`uses: ([^\s#]+)`)

// TestWorkflows checks that each workflow is YAML, names the rights of its token, and pins
// other people's actions to a commit.
func TestWorkflows(t *testing.T) {
	paths, err := filepath.Glob(".github/workflows/*.yml")
	if err != nil || len(paths) < 3 {
		t.Fatalf("%v, %v", paths, err)
	}
	for _, path := range paths {
		var w struct {
			Permissions any
			Jobs        map[string]any
		}
		text := readText(t, path)
		if err := yaml.Unmarshal([]byte(text), &w); err != nil || len(w.Jobs) == 0 || w.Permissions == nil {
			t.Errorf("%s: want jobs and permissions: %v", path, err)
		}
		for _, m := range workflowUses.FindAllStringSubmatch(text, -1) {
			if m[1] != "./" && !pinned.MatchString(m[1]) {
				t.Errorf("%s: %s is not pinned to a commit", path, m[1])
			}
		}
	}
}
