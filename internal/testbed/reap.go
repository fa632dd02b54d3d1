package testbed

import (
	_ "embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"syscall"
)

// reaper ends every process below a directory, and removes the directory. With
// "keep" it first waits until its standard input ends, which is when whoever holds the
// other end is dead or has let go.
//
//go:embed reap.sh
var reaper string

// keep has what runs below the directory ended, and the directory removed, when this
// process is gone, however it goes, or when release is called.
func keep(dir string) (release func() error, err error) {
	cmd := exec.Command("/bin/sh", "-c", reaper, "reap", "keep", dir) //nolint:noctx // it outlives all
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() error {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			return err
		}
		if _, err := os.Stat(dir); err == nil {
			return fmt.Errorf("%s is still there", dir)
		}
		return nil
	}, nil
}

// Keep has what runs below a directory ended, and the directory removed, when this process is
// gone, however it goes, or when release is called: for who brings managers up without a
// test of their own, by NewSlurm or NewCondor and Up.
func Keep(dir string) (release func() error, err error) { return keep(dir) }

// reap ends what runs below the directory, which stays.
func reap(dir string) error {
	return exec.Command("/bin/sh", "-c", reaper, "reap", "end", dir).Run() //nolint:noctx // it is carried through
}

// resolvesTo reports whether a name leads to the address.
func resolvesTo(host, addr string) bool {
	addrs, err := net.LookupHost(host) //nolint:noctx // of this machine
	return err == nil && slices.Contains(addrs, addr)
}
