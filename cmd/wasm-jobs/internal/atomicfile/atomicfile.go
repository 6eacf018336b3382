// Package atomicfile writes files that appear under their names when they are
// complete.
package atomicfile

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/packed"
)

// File is a file that is being written. It is for one goroutine at a time.
type File struct {
	path   string    // the final path
	file   *os.File  // opened at temp, or at path if that is not a regular file
	temp   string    // in the directory of path; "" = none
	sealed bool      // the file is complete, and closed
	out    io.Writer // instead of a file

	upload func(*os.File) error // instead of a final path; nil if there is one

	packer io.WriteCloser // before file; nil if its name asks for no compression
}

// To returns a File without a name, which writes directly to out.
func To(out io.Writer) *File { return &File{out: out} }

// Create checks that a file can be written at path, and opens a temporary file in its
// directory. If the path ends in .gz or .zst, the file is compressed. A file that is
// replaced keeps its mode. Create follows a link, and opens a device or a pipe directly.
// It removes temporary files of dead processes from the directory.
func Create(path string) (*File, error) {
	f, err := create(path)
	if form := packed.FormOf(path); err == nil && form != "" {
		f.packer, err = packed.NewWriter(f.file, form)
	}
	return f, err
}

// Upload opens a temporary file whose content upload gets instead of a final path, in
// Place. name says how the file is compressed. upload may read the file more than once.
func Upload(name string, upload func(*os.File) error) (*File, error) {
	f := &File{temp: tempName(filepath.Join(os.TempDir(), "wasm-jobs-upload")), upload: upload}
	Sweep(os.TempDir())
	var err error
	if f.file, err = createTemp(f.temp, 0o600); err != nil {
		return nil, err
	}
	if form := packed.FormOf(name); form != "" {
		f.packer, err = packed.NewWriter(f.file, form)
	}
	return f, err
}

func create(path string) (*File, error) {
	path = Resolve(path)
	mode := fs.FileMode(0o666) // minus the umask
	stat, err := os.Stat(path)
	switch {
	case err == nil && stat.IsDir():
		return nil, errors.New("it is a directory")
	case err == nil && !stat.Mode().IsRegular():
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		return &File{path: path, file: file}, err
	case err == nil && stat.Mode().Perm()&0o200 == 0:
		return nil, errors.New("it is read-only")
	case err == nil:
		mode = stat.Mode().Perm()
	}
	f := &File{path: path, temp: tempName(path)}
	Sweep(filepath.Dir(path))
	if f.file, err = createTemp(f.temp, mode); err != nil {
		return nil, err
	}
	if stat != nil {
		_ = f.file.Chmod(mode) // if it fails, the mode of the umask remains
	}
	return f, nil
}

// Resolve follows links and returns the path of the file, which is replaced instead of
// the link.
func Resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	} else if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(dir, filepath.Base(path))
	}
	if absolute, err := filepath.Abs(path); err == nil {
		return absolute
	}
	return path
}

// Out returns the writer of the file's bytes.
func (f *File) Out() io.Writer {
	if f.out != nil {
		return f.out
	}
	if f.packer != nil {
		return f.packer
	}
	return f.file
}

// Temporary reports whether nothing of the file is seen until Place: it is not written
// to a pipe, a device or the like.
func (f *File) Temporary() bool { return f.temp != "" }

// Paths returns the final and the temporary path of the file. It returns none for a
// File of [To].
func (f *File) Paths() (paths []string) {
	for _, path := range []string{f.temp, f.path} {
		if path != "" {
			paths = append(paths, path)
		}
	}
	return paths
}

// Fill calls fill with a buffered writer of the file, and flushes it.
func (f *File) Fill(fill func(*bufio.Writer) error) error {
	b := bufio.NewWriterSize(f.Out(), 1<<18)
	if err := fill(b); err != nil {
		return err
	}
	return b.Flush()
}

// Write fills the file with fill and puts it in place.
func (f *File) Write(fill func(*bufio.Writer) error) error {
	if err := f.Fill(fill); err != nil {
		return err
	}
	return f.Place()
}

// Seal ends the writing of the file. The file gets its name from Place.
func (f *File) Seal() error {
	if f.sealed || f.file == nil {
		return nil
	}
	f.sealed = true
	var err error
	if f.packer != nil {
		err = f.packer.Close()
	}
	if f.temp == "" {
		return errors.Join(err, f.file.Close())
	}
	return errors.Join(err, f.file.Sync(), f.file.Close())
}

// Place gives the file its name.
func (f *File) Place() error {
	if err := f.Seal(); err != nil || f.temp == "" {
		return err
	}
	if f.upload != nil {
		return f.send()
	}
	if err := os.Rename(f.temp, f.path); err != nil {
		return err
	}
	forget(f.temp)
	f.temp = ""
	return nil
}

// send uploads the file, and removes it.
func (f *File) send() error {
	file, err := os.Open(f.temp)
	if err != nil {
		return err
	}
	err = f.upload(file)
	file.Close()
	f.Discard()
	return err
}

// Discard removes the temporary file, unless it was put in place.
func (f *File) Discard() {
	if f.file != nil && !f.sealed {
		f.sealed = true
		f.file.Close()
	}
	if f.temp != "" {
		os.Remove(f.temp)
		forget(f.temp)
		f.temp = ""
	}
}

var (
	mu   sync.Mutex
	open = map[string]bool{} // temporary files of this process; mu
)

func createTemp(temp string, mode fs.FileMode) (*os.File, error) {
	mu.Lock()
	defer mu.Unlock()
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err == nil {
		open[temp] = true
	}
	return file, err
}

func forget(temp string) {
	mu.Lock()
	defer mu.Unlock()
	delete(open, temp)
}

// Abandon removes all temporary files of this process, which is about to end abruptly.
// A later call of Create or Place blocks forever.
func Abandon() {
	mu.Lock()
	for temp := range open {
		os.Remove(temp)
	}
}
