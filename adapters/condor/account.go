package condor

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// account is who a job runs as.
type account struct {
	name, group, home string
	uid, gid          int
}

func accountOf(u *user.User) (account, error) {
	a := account{name: u.Username, home: u.HomeDir, group: u.Gid}
	var err error
	if a.uid, err = strconv.Atoi(u.Uid); err != nil {
		return a, fmt.Errorf("the account %q has no number here", u.Username)
	}
	if a.gid, err = strconv.Atoi(u.Gid); err != nil {
		return a, fmt.Errorf("the account %q has no group here", u.Username)
	}
	if g, err := user.LookupGroupId(u.Gid); err == nil {
		a.group = g.Name
	}
	if a.home == "" {
		a.home = "/"
	}
	return a, nil
}

// whoami gives the account of the gateway.
func whoami() account {
	id := strconv.Itoa(os.Getuid())
	if u, err := user.LookupId(id); err == nil {
		if a, err := accountOf(u); err == nil {
			return a
		}
	}
	return account{name: id, group: strconv.Itoa(os.Getgid()), home: "/", uid: os.Getuid(), gid: os.Getgid()}
}

// lookupAccount finds an account that jobs may run as: HTCondor runs none as root.
func lookupAccount(name string) (account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return account{}, fmt.Errorf("there is no account %q here", name)
		}
	}
	a, err := accountOf(u)
	if err == nil && a.uid == 0 {
		err = fmt.Errorf("HTCondor runs no job as %q", name)
	}
	return a, err
}

// closed gives the first directory on a path that others may not enter; "" if there is
// none.
func closed(path string) string {
	for dir := path; ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode()&0o001 == 0 {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}
