package boinc

import "strings"

// kind is what the name of a platform says, in JSDL's words.
type kind struct {
	system       string
	architecture string
}

// kindOf reads the name of a platform: "x86_64-pc-linux-gnu", "windows_x86_64".
func kindOf(platform string) kind {
	k := kind{system: "other", architecture: "other"}
	for _, s := range []struct{ part, is string }{
		{"linux-android", "other"}, {"linux", "LINUX"}, {"windows", "WINNT"}, {"darwin", "MACOS"}, {"freebsd", "FreeBSD"}, {"solaris", "Solaris"},
	} {
		if strings.Contains(platform, s.part) {
			k.system = s.is
			break
		}
	}
	for _, a := range []struct{ part, is string }{
		{"x86_64", "x86_64"},
		{"i686", "x86_32"},
		{"intelx86", "x86_32"},
		{"i386", "x86_32"},
		{"arm", "arm"},
		{"aarch64", "arm"},
		{"powerpc", "powerpc"},
		{"ppc", "powerpc"},
		{"sparc", "sparc"},
		{"ia64", "ia64"},
		{"mips", "mips"},
	} {
		if strings.Contains(platform, a.part) {
			k.architecture = a.is
			break
		}
	}
	return k
}
