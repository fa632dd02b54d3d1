package shell

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/jsdl"
)

// runAs is the account of a job, where it is not the gateway's own.
type runAs struct {
	Name   string   `json:"name"`
	UID    int      `json:"uid"`
	GID    int      `json:"gid"`
	Groups []uint32 `json:"groups,omitzero"` // supplementary
	home   string
}

// accountOf finds out who the job runs as: the account that its owner is mapped to,
// or the one that it names itself, if the site allows it. nil is the gateway's own.
func (m *site) accountOf(p jsdl.Program, mapped string, no *refusals) *runAs {
	own := func(name string) bool { return name == m.account.user || name == strconv.Itoa(m.account.uid) }
	name, element := mapped, "the account that the job's owner is mapped to"
	switch {
	case mapped == "" && p.UserName != nil:
		name, element = *p.UserName, "UserName"
	case mapped != "" && p.UserName != nil && *p.UserName != mapped:
		no.add("UserName: the job's owner is mapped to the account %q here, not to %q; leave it out", mapped, *p.UserName)
		return nil
	}
	if name == "" && mapped == "" && p.UserName == nil || own(name) {
		if p.GroupName != nil && *p.GroupName != m.account.group && *p.GroupName != strconv.Itoa(m.account.gid) {
			no.add("GroupName: jobs run in the group %q here, not in %q; leave it out", m.account.group, *p.GroupName)
		}
		return nil
	}
	if !m.confinement.accounts || mapped == "" && !m.allows(name) {
		no.add("%s: jobs run as %q here, not as %q; leave it out", element, m.account.user, name)
		if p.GroupName != nil {
			no.add("GroupName: jobs run in the group %q here, not in %q; leave it out", m.account.group, *p.GroupName)
		}
		return nil
	}
	if m.afar {
		no.blind = true
		return &runAs{Name: name, UID: -1, GID: -1, home: "/"}
	}
	r, err := lookupAccount(name)
	if err != nil {
		no.add("%s: %s", element, err)
		return nil
	}
	if p.GroupName != nil {
		if err := r.group(*p.GroupName); err != nil {
			no.add("GroupName: %s", err)
		}
	}
	if dir := closed(m.jobs); dir != "" {
		no.add("%s: the account %q can't get at the site's directory: others may not enter %s", element, name, dir)
	}
	return r
}

func (m *site) allows(name string) bool {
	return slices.Contains(m.options.Sandbox.Accounts, name) || slices.Contains(m.options.Sandbox.Accounts, "*")
}

func lookupAccount(name string) (*runAs, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("there is no account %q on this machine", name)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("the account %q has no numbers here", name)
	}
	if uid == 0 {
		return nil, fmt.Errorf("no job runs as %q", name)
	}
	r := &runAs{Name: name, UID: uid, GID: gid, home: u.HomeDir}
	if r.home == "" {
		r.home = "/"
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("the groups of the account %q can't be found out", name)
	}
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			r.Groups = append(r.Groups, uint32(n))
		}
	}
	return r, nil
}

// group makes one of the account's groups its first.
func (r *runAs) group(name string) error {
	id := name
	if g, err := user.LookupGroup(name); err == nil {
		id = g.Gid
	}
	gid, err := strconv.ParseUint(id, 10, 32)
	if err != nil || int(gid) != r.GID && !slices.Contains(r.Groups, uint32(gid)) {
		return fmt.Errorf("the account %q is not in a group %q", r.Name, name)
	}
	r.GID = int(gid)
	return nil
}

func (r *runAs) credential() *syscall.Credential {
	if r == nil {
		return nil
	}
	return &syscall.Credential{Uid: uint32(r.UID), Gid: uint32(r.GID), Groups: r.Groups}
}

// closed finds the directory above path, and above the site's own, that others may
// not enter; "" if there is none.
func closed(jobs string) string {
	for dir := filepath.Dir(filepath.Dir(jobs)); ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&0o001 == 0 {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}

// as does something with the rights of the job's account: the files that a job
// names are opened as its account would open them. The account of files is the
// thread's (setfsuid(2)), which takes root's rights over files away with it;
// groups are the process's. Only a supervisor calls it, on its own thread.
func (s *spec) as(f func() error) (err error) {
	r := s.Account
	if r == nil {
		return f()
	}
	before, err := syscall.Getgroups()
	if err != nil {
		return refuse("the job's account could not be taken: %s", why(err))
	}
	groups := make([]int, 0, len(r.Groups))
	for _, g := range r.Groups {
		groups = append(groups, int(g))
	}
	uid, gid := os.Geteuid(), os.Getegid()
	defer func() {
		// A thread that can't get its rights back is of no use to anybody.
		if back := errors.Join(unix.Setfsuid(uid), unix.Setfsgid(gid), syscall.Setgroups(before)); back != nil {
			panic("the supervisor's account could not be taken again: " + back.Error())
		}
	}()
	if err := errors.Join(syscall.Setgroups(groups), unix.Setfsgid(r.GID), unix.Setfsuid(r.UID)); err != nil {
		return refuse("the job's account could not be taken: %s", why(err))
	}
	// The calls tell nothing of a refusal; asking does.
	if now, err := unix.SetfsuidRetUid(-1); err != nil || now != r.UID {
		return refuse("the job's account could not be taken")
	}
	if now, err := unix.SetfsgidRetGid(-1); err != nil || now != r.GID {
		return refuse("the job's account could not be taken")
	}
	return f()
}

// give gives a file or directory that the site made for the job to its account.
func (s *spec) give(path string) error {
	if s.Account == nil {
		return nil
	}
	return os.Lchown(path, s.Account.UID, s.Account.GID)
}

// openOutput opens a job's output for reading. A path that another account had in
// its hands may lead anywhere by now: only its own files are read.
func openOutput(path string, account *runAs) (*os.File, error) {
	if account == nil {
		// Whatever stands there now, opening it must not wait.
		return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd) //nolint:errcheck // a path
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if int(stat.Uid) != account.UID || stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}
