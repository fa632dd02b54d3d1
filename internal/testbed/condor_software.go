package testbed

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// unpacker makes the folder of a foreign release's programs.
//
//go:embed unpack.sh
var unpacker string

// CondorPackages are the Debian packages that unpacking HTCondor needs on this machine;
// every Debian has them.
const CondorPackages = "apt dpkg"

// condorRelease is the Debian release that HTCondor is taken from: bookworm has none.
const condorRelease = "trixie"

// CondorSoftware gives the folder of HTCondor's programs, unpacked from Debian's
// packages with their own C library, so that nothing of this machine changes. It is
// made once and kept in the cache; whoever comes meanwhile waits.
func CondorSoftware(ctx context.Context) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	// The programs hold the path of their libraries, so that a cache that was copied
	// elsewhere is worth nothing; nor is what was made in another way.
	way := sha256.Sum256([]byte(unpacker + cache))
	dir := filepath.Join(cache, fmt.Sprintf("condor-%s-%x", condorRelease, way[:4]))
	complete := func() bool {
		_, err := os.Stat(filepath.Join(dir, "usr", "sbin", "condor_master"))
		return err == nil
	}
	if complete() {
		return dir, nil
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close() // which lets go of it
	if err := waitLock(ctx, lock); err != nil {
		return "", err
	}
	if complete() {
		return dir, nil
	}
	for _, tool := range []string{"apt-get", "dpkg-deb"} {
		if program(tool) == "" {
			return "", fmt.Errorf("HTCondor is unpacked from Debian's packages, for which %s is missing: this must be a Debian", tool)
		}
	}
	// Who was killed here before left a folder that is not complete.
	for _, left := range []string{dir, dir + ".new"} {
		if err := os.RemoveAll(left); err != nil {
			return "", err
		}
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", unpacker, "unpack", condorRelease, dir, "condor")
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.ExtraFiles = []*os.File{lock} // held as long as anything of it works, should we die
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("HTCondor could not be unpacked: %w\n%s", err, lastLines(said.String(), 15))
	}
	if !complete() {
		return "", fmt.Errorf("the packages of HTCondor hold no condor_master:\n%s", lastLines(said.String(), 15))
	}
	return dir, nil
}

// cacheDir is where software is kept between runs: in the user's cache, but for root
// where other accounts can't get there, as jobs of root run as one of them.
func cacheDir() (string, error) {
	cache, err := os.UserCacheDir()
	if os.Getuid() == 0 && (err != nil || reachable(cache) != nil) {
		cache, err = "/var/cache", nil
	}
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "portolan-testbed")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// waitLock waits for an exclusive lock, which ends with the process that holds it.
func waitLock(ctx context.Context, f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err != syscall.EWOULDBLOCK {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for another who unpacks HTCondor: %w", ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func lastLines(s string, n int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}

// reachable says which directory on the way to path other accounts may not enter, of
// those that are there.
func reachable(path string) error {
	for dir := path; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && info.Mode()&0o001 == 0 {
			return fmt.Errorf("%s is closed to other accounts, as which root's jobs run; choose a place that is not", dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}
