package shell

import (
	"bufio"
	"bytes"
	"math"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// machine is what does not change while the gateway runs.
type machine struct {
	os, osVersion string // in JSDL's words, and the kernel's release
	arch          string // in JSDL's words
	cpus          int
	speed         float64 // hertz; 0 unknown
	memory        int64   // bytes
	virtual       int64   // bytes, with swap
	names         []string
	boot          string // this start of the machine
	argMax        int64  // bytes of arguments and environment
	account       account
}

// account is who the gateway, and so every job, runs as.
type account struct {
	user, group, home string
	uid, gid          int
}

// architectures puts Go's names into JSDL's (GFD.56 §5.2.1); what has none is "other".
var architectures = map[string]string{
	"amd64": "x86_64", "386": "x86_32", "arm": "arm", "arm64": "arm", "ppc64": "powerpc", "ppc64le": "powerpc",
	"mips": "mips", "mipsle": "mips", "mips64": "mips", "mips64le": "mips", "sparc64": "sparc",
}

func inspect(extra []string) machine {
	m := machine{os: "LINUX", arch: "other", cpus: runtime.NumCPU()}
	if arch, ok := architectures[runtime.GOARCH]; ok {
		m.arch = arch
	}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		m.osVersion = unix.ByteSliceToString(uts.Release[:])
	}
	mem := meminfo()
	m.memory, m.virtual = mem["MemTotal"], mem["MemTotal"]+mem["SwapTotal"]
	m.speed = cpuSpeed()
	m.names = hostNames(extra)
	if boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		m.boot = string(bytes.TrimSpace(boot))
	}
	m.argMax = argMax()
	m.account = whoami()
	return m
}

func meminfo() map[string]int64 {
	values := map[string]int64{}
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return values
	}
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(line, ":")
		if f := strings.Fields(rest); len(f) > 0 {
			if n, err := strconv.ParseInt(f[0], 10, 64); err == nil {
				values[name] = n << 10
			}
		}
	}
	return values
}

// cpuSpeed gives the highest clock that a CPU may run at, in hertz.
func cpuSpeed() float64 {
	if data, err := os.ReadFile("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"); err == nil {
		if khz, err := strconv.ParseFloat(string(bytes.TrimSpace(data)), 64); err == nil {
			return khz * 1e3
		}
	}
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return 0
	}
	defer f.Close() // only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(name) == "cpu MHz" {
			if mhz, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
				return mhz * 1e6
			}
		}
	}
	return 0
}

func hostNames(extra []string) []string {
	var names []string
	if host, err := os.Hostname(); err == nil && host != "" {
		names = append(names, host)
		if short, _, dotted := strings.Cut(host, "."); dotted {
			names = append(names, short)
		}
	}
	return append(append(names, "localhost"), extra...)
}

// The kernel's bounds on what a program is given (execve(2)): a quarter of the
// stack limit, at most 6 MiB, for all of it; 32 pages for one string.
const (
	maxString     = 128 << 10
	maxAllStrings = 6 << 20
	minAllStrings = 128 << 10
)

func argMax() int64 {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_STACK, &r) != nil || r.Cur/4 > maxAllStrings {
		return maxAllStrings
	}
	return max(int64(r.Cur/4), minAllStrings)
}

func whoami() account {
	a := account{uid: os.Getuid(), gid: os.Getgid(), home: "/"}
	a.user, a.group = strconv.Itoa(a.uid), strconv.Itoa(a.gid)
	if u, err := user.LookupId(a.user); err == nil {
		a.user = u.Username
		if u.HomeDir != "" {
			a.home = u.HomeDir
		}
	}
	if g, err := user.LookupGroupId(a.group); err == nil {
		a.group = g.Name
	}
	return a
}

// diskFree gives the bytes free to an ordinary account where path is.
func diskFree(path string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return 0, err
	}
	return int64(min(s.Bavail*uint64(s.Bsize), math.MaxInt64)), nil
}

// diskFull reports whether not even a block or a file is left where path is.
func diskFull(path string) bool {
	var s syscall.Statfs_t
	if syscall.Statfs(path, &s) != nil || s.Blocks == 0 {
		return false
	}
	left := s.Bavail
	if os.Geteuid() == 0 {
		left = s.Bfree
	}
	return left == 0 || s.Files > 0 && s.Ffree == 0
}
