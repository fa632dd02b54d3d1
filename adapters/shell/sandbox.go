package shell

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/internal/fail"
)

// Sandbox is what every job of a site is confined to. The zero value confines to
// nothing beyond the account.
type Sandbox struct {
	// Accounts are local accounts that posix:UserName may name, or "*" for all but root's.
	// Only a gateway that runs as root can let jobs run as another account.
	Accounts []string `yaml:"accounts" json:"accounts,omitzero"`
	// NoNewPrivileges keeps programs from gaining rights by set-user-ID files and the
	// like (prctl(2), PR_SET_NO_NEW_PRIVS).
	NoNewPrivileges bool `yaml:"noNewPrivileges" json:"noNewPrivileges,omitzero"`
	// PrivateTmp gives each job a /tmp and a /var/tmp of its own, empty at first and
	// gone at its end. Needs root, or user namespaces.
	PrivateTmp bool `yaml:"privateTmp" json:"privateTmp,omitzero"`
	// Network is "host", which is also "", or "none": a network with nothing but the
	// job's own loopback. Needs root, or user namespaces.
	Network string `yaml:"network" json:"network,omitzero"`
}

const networkNone = "none"

func (s Sandbox) validate() error {
	switch s.Network {
	case "", "host", networkNone:
	default:
		return fail.Errorf("shell.New", fail.Invalid, "sandbox", "sandbox: network is %q or %q, not %q", "host", networkNone, s.Network)
	}
	if slices.Contains(s.Accounts, "") {
		return fail.Errorf("shell.New", fail.Invalid, "sandbox", "sandbox: accounts has an empty name")
	}
	return nil
}

// namespaces reports whether jobs need some of their own.
func (s Sandbox) namespaces() bool { return s.PrivateTmp || s.Network == networkNone }

// confinement is what the machine offers for sandboxes, and how.
type confinement struct {
	mounts, network bool
	users           bool // by a user namespace of the supervisor's
	accounts        bool
}

// userNamespace are the attributes of a process in one, where it is who it is
// outside, but may mount and make networks.
func userNamespace() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN},
	}
}

// probeConfinement sees what can be had, on a thread that is thrown away after.
func probeConfinement() confinement {
	c := confinement{accounts: os.Geteuid() == 0}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		c.mounts = unix.Unshare(unix.CLONE_NEWNS) == nil && unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "") == nil
		c.network = unix.Unshare(unix.CLONE_NEWNET) == nil && loopbackUp() == nil
	}()
	<-done
	if c.mounts && c.network {
		return c
	}
	for _, path := range []string{"/bin/true", "/usr/bin/true"} {
		cmd := exec.Command(path) //nolint:noctx // it ends at once
		cmd.SysProcAttr = userNamespace()
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNET
		if cmd.Run() == nil {
			c.mounts, c.network, c.users = true, true, true
			break
		}
	}
	return c
}

// missing says what of the sandbox can't be had, for Check.
func (c confinement) missing(s Sandbox) []string {
	var list []string
	if s.PrivateTmp && !c.mounts {
		list = append(list, "sandbox privateTmp: this machine lets the site make no mount namespace; run the gateway as root or allow user namespaces")
	}
	if s.Network == networkNone && !c.network {
		list = append(list, "sandbox network: this machine lets the site make no network namespace; run the gateway as root or allow user namespaces")
	}
	if len(s.Accounts) > 0 && !c.accounts {
		list = append(list, "sandbox accounts: only root can run jobs as other accounts")
	}
	return list
}

// remarks say what is offered.
func (c confinement) remarks() []string {
	say := func(name string, offered bool, how string) string {
		if !offered {
			return name + ": not offered here"
		}
		return name + ": offered" + how
	}
	how := ""
	if c.users {
		how = ", by user namespaces"
	}
	return []string{
		say("sandbox accounts", c.accounts, ""), "sandbox noNewPrivileges: offered",
		say("sandbox privateTmp", c.mounts, how), say("sandbox network none", c.network, how),
	}
}

// box is the sandbox of a supervisor's jobs. It belongs to the thread that starts
// them: Linux keeps privileges, mounts and networks by thread, and a program gets
// those of the thread that forks it.
type box struct {
	Sandbox
	unshared bool
	mounted  []string // the last one first to go
}

// prepare does once what holds for every job.
func (b *box) prepare() error {
	// Rights in a user namespace are the supervisor's, not the programs'.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("giving up rights for programs: %w", err)
	}
	if b.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("no_new_privs: %w", err)
		}
	}
	return nil
}

// private are the directories that a job gets its own of.
var private = []string{"/tmp", "/var/tmp"}

// enter puts the thread into the sandbox of one job.
func (b *box) enter(d jobDir, s *spec) error {
	if b.Network == networkNone {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return refuse("the job's sandbox could not be made: no network namespace: %s", why(err))
		}
		if err := loopbackUp(); err != nil {
			return refuse("the job's sandbox could not be made: its loopback: %s", why(err))
		}
	}
	if !b.PrivateTmp {
		return nil
	}
	if err := b.mountAll(d, s); err != nil {
		b.leave()
		return refuse("the job's sandbox could not be made: a private /tmp: %s", err)
	}
	return nil
}

func (b *box) mountAll(d jobDir, s *spec) error {
	if !b.unshared {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("mount namespace: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			return fmt.Errorf("mount namespace: %w", err)
		}
		b.unshared = true
	}
	own, err := unix.Open(string(d), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(own) //nolint:errcheck // a path
	for i, target := range private {
		if info, err := os.Lstat(target); err != nil || !info.IsDir() {
			continue
		}
		source := d.path(fmt.Sprintf("%s%d", namePrivate, i))
		if err := os.Mkdir(source, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if err := os.Chmod(source, 0o777|os.ModeSticky); err != nil {
			return err
		}
		if s.Account != nil {
			if err := os.Lchown(source, s.Account.UID, s.Account.GID); err != nil {
				return err
			}
		}
		if err := b.bind(source, target); err != nil {
			return err
		}
		// Where the site keeps its jobs below /tmp, this job's own directory stays.
		if rel, err := filepath.Rel(target, string(d)); err == nil && !strings.HasPrefix(rel, "..") {
			if err := os.MkdirAll(string(d), 0o711); err != nil {
				return err
			}
			if err := b.bind(fmt.Sprintf("/proc/thread-self/fd/%d", own), string(d)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *box) bind(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	b.mounted = append(b.mounted, target)
	return nil
}

// leave takes the thread out again.
func (b *box) leave() {
	for _, target := range slices.Backward(b.mounted) {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			fmt.Fprintln(os.Stderr, "supervisor of jobs: taking a sandbox down: "+err.Error())
		}
	}
	b.mounted = nil
}

// loopbackUp starts the loopback of the thread's network.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was sent
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, lo); err != nil {
		return err
	}
	lo.SetUint16(lo.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}
