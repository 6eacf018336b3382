package wasi

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReadOnlyMount asks Linux for the results of the attempts on a file system that
// is mounted read-only, in its own mount namespace.
func TestReadOnlyMount(t *testing.T) {
	const mounted = "WASM_JOBS_TEST_MOUNT"
	if os.Getenv(mounted) == "" {
		child := exec.Command("unshare", "-rm", os.Args[0], "-test.run=^TestReadOnlyMount$", "-test.v")
		child.Env = append(os.Environ(), mounted+"=1")
		out, err := child.CombinedOutput()
		switch {
		case err == nil:
		case child.ProcessState == nil || child.ProcessState.ExitCode() == cannotMount || string(out[:min(7, len(out))]) == "unshare":
			t.Skipf("nothing can be mounted here: %v: %.200s", err, out)
		default:
			t.Errorf("%v: %.4000s", err, out)
		}
		return
	}
	dir := plant(t, garden)
	if unix.Mount(dir, dir, "", unix.MS_BIND, "") != nil || unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "") != nil {
		os.Exit(cannotMount)
	}
	defer unix.Unmount(dir, 0)
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, a := range attempts() {
		if e := errnoOf(a.onLinux(fd)); e != a.want {
			t.Errorf("%s: errno %d, recorded %d", a, e, a.want)
		}
	}
}

const cannotMount = 77

func (a attempt) onLinux(fd int) error {
	nofollow, follow := unix.AT_SYMLINK_NOFOLLOW, 0
	if a.follow {
		nofollow, follow = 0, unix.AT_SYMLINK_FOLLOW
	}
	switch a.call {
	case "path_open":
		opened, err := unix.Openat(fd, a.path, a.openFlags(), 0o600)
		unix.Close(opened)
		return err
	case "path_create_directory":
		return unix.Mkdirat(fd, a.path, 0o700)
	case "path_remove_directory":
		return unix.Unlinkat(fd, a.path, unix.AT_REMOVEDIR)
	case "path_unlink_file":
		return unix.Unlinkat(fd, a.path, 0)
	case "path_rename":
		return unix.Renameat(fd, a.path, fd, a.second)
	case "path_symlink":
		return unix.Symlinkat(a.second, fd, a.path)
	case "path_link":
		return unix.Linkat(fd, a.path, fd, a.second, follow)
	case "path_filestat_set_times":
		return unix.UtimesNanoAt(fd, a.path, []unix.Timespec{a.time(setAccess, setAccessNow), a.time(setModify, setModifyNow)}, nofollow)
	}
	return unix.ENOSYS
}

func (a attempt) openFlags() int {
	flags := unix.O_RDONLY | unix.O_CLOEXEC
	if a.write {
		flags = unix.O_RDWR | unix.O_CLOEXEC
	}
	for bit, flag := range map[uint32]int{openCreate: unix.O_CREAT, openDirectory: unix.O_DIRECTORY, openExclusive: unix.O_EXCL, openTruncate: unix.O_TRUNC} {
		if a.flags&bit != 0 {
			flags |= flag
		}
	}
	if !a.follow {
		flags |= unix.O_NOFOLLOW
	}
	return flags
}

func (a attempt) time(set, now uint32) unix.Timespec {
	switch {
	case a.flags&set != 0:
		return unix.Timespec{Nsec: 1}
	case a.flags&now != 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	return unix.Timespec{Nsec: unix.UTIME_OMIT}
}

// errnoOf returns the number in WASI of an error of Linux.
func errnoOf(err error) errno {
	if err == nil {
		return success
	}
	return map[error]errno{unix.EBUSY: errBusy, unix.EEXIST: errExist, unix.EINVAL: errInval, unix.EISDIR: errIsdir, unix.ELOOP: errLoop,
		unix.ENAMETOOLONG: errNametoolong, unix.ENOENT: errNoent, unix.ENOTDIR: errNotdir, unix.ENOTEMPTY: errNotempty, unix.EROFS: errRofs}[err]
}
