package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockData makes the directory and takes its lock, which ends with the process:
// two gateways on the same data would run jobs twice.
func lockData(dir string) (release func(), err error) {
	if err := makeData(dir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, refusedf("the data of the gateway can't be used: %v: choose another directory with --data", err)
	}
	if err := own(f); err != nil {
		holder := ""
		if b, rerr := io.ReadAll(io.LimitReader(f, 32)); rerr == nil && len(b) > 0 {
			holder = " (process " + plain(strings.TrimSpace(string(b))) + ")"
		}
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, refusedf("another gateway%s uses %s: stop it first, or choose another directory with --data", holder, dir)
		}
		return nil, refusedf("%s could not be locked: %v: choose a directory of a local file system with --data", dir, err)
	}
	// For people only; a disk that is full must not keep the gateway from serving.
	_ = f.Truncate(0)
	fmt.Fprintf(f, "%d\n", os.Getpid())
	return func() { f.Close() }, nil
}

// own locks a file for this process. A process that a killed gateway was just
// about to start has its descriptors, and so the lock, for a moment more.
func own(f *os.File) error {
	for tries := 0; ; tries++ {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) || tries == 200 {
			return err
		}
		<-time.After(10 * time.Millisecond)
	}
}
