package jsdl

import "strings"

// The words of the standard's enumerations (GFD.56 §5.1), as the schema spells them.

var operatingSystemNames = []string{
	"Unknown", "MACOS", "ATTUNIX", "DGUX", "DECNT", "Tru64_UNIX", "OpenVMS", "HPUX", "AIX", "MVS", "OS400",
	"OS_2", "JavaVM", "MSDOS", "WIN3x", "WIN95", "WIN98", "WINNT", "WINCE", "NCR3000", "NetWare", "OSF", "DC_OS",
	"Reliant_UNIX", "SCO_UnixWare", "SCO_OpenServer", "Sequent", "IRIX", "Solaris", "SunOS", "U6000", "ASERIES",
	"TandemNSK", "TandemNT", "BS2000", "LINUX", "Lynx", "XENIX", "VM", "Interactive_UNIX", "BSDUNIX", "FreeBSD",
	"NetBSD", "GNU_Hurd", "OS9", "MACH_Kernel", "Inferno", "QNX", "EPOC", "IxWorks", "VxWorks", "MiNT", "BeOS",
	"HP_MPE", "NextStep", "PalmPilot", "Rhapsody", "Windows_2000", "Dedicated", "OS_390", "VSE", "TPF",
	"Windows_R_Me", "Caldera_Open_UNIX", "OpenBSD", "Not_Applicable", "Windows_XP", "z_OS", "other",
}

var cpuArchitectureNames = []string{
	"sparc", "powerpc", "x86", "x86_32", "x86_64", "parisc", "mips", "ia64", "arm", "other",
}

var fileSystemTypes = []string{"swap", "temporary", "spool", "normal"}

var creationFlags = []string{"overwrite", "append", "dontOverwrite"}

// wantWord says which word was probably meant, or lists them when they are few.
func wantWord(words []string, s string) string {
	for _, w := range words {
		if strings.EqualFold(w, trim(s)) {
			return "expected " + w + ", spelled so and without white space around it"
		}
	}
	if len(words) <= 12 {
		return "expected one of " + strings.Join(words, ", ")
	}
	for _, w := range words {
		if near(w, trim(s)) {
			return "did you mean " + w + "?"
		}
	}
	return "expected a name of the standard's list, such as LINUX or Solaris; other stands for what it does not have"
}
