package dpkg

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An outcome is what became of a package: a line of the log.
type outcome struct {
	Time     string `json:"time"` // RFC 3339, UTC
	Package  string `json:"package"`
	Version  string `json:"version"`
	Arch     string `json:"architecture"`
	Root     string `json:"root"`
	Result   result `json:"result"`
	Verified bool   `json:"verified"` // by a certificate
	// Labelled counts the names that have their label now, Scripts those of the
	// maintainer scripts.
	Labelled int `json:"labelled"`
	Scripts  int `json:"scripts"`
	// Skipped counts the files that have a signature and got no label, by the reason;
	// SkippedFiles names the first of them.
	Skipped      map[string]int `json:"skipped,omitempty"`
	SkippedFiles []skippedFile  `json:"skipped_files,omitempty"`
	Problem      string         `json:"problem,omitempty"`
	Warnings     []string       `json:"warnings,omitempty"`
	Microseconds int64          `json:"microseconds"` // that labelling took

	told int // how many warnings were told
}

type skippedFile struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// A result says in one word what became of a package.
type result string

const (
	resultLabelled   result = "labelled"
	resultUnsigned   result = "unsigned"    // it has no signatures, and may
	resultUnlabelled result = "unlabelled"  // it has signatures that do not count here
	resultNoSupport  result = "unsupported" // no label can be set
	resultRefused    result = "refused"
)

// maxSkipped bounds how many files and warnings a line names.
const maxSkipped = 100

// skip notes that the file at path got no label.
func (o *outcome) skip(path, reason string) {
	if o.Skipped == nil {
		o.Skipped = map[string]int{}
	}
	o.Skipped[reason]++
	if len(o.SkippedFiles) < maxSkipped {
		o.SkippedFiles = append(o.SkippedFiles, skippedFile{path, reason})
	}
}

// warn notes what an administrator should know.
func (o *outcome) warn(format string, args ...any) {
	if len(o.Warnings) < maxSkipped {
		o.Warnings = append(o.Warnings, fmt.Sprintf(format, args...))
	}
}

// title is what a person calls the package.
func (o *outcome) title() string {
	if o.Package == "" {
		return "a package"
	}
	return strings.TrimSpace(o.Package + " " + o.Version)
}

// tell tells syslog and stderr the warnings that were not told yet.
func (o *outcome) tell(system string) {
	for _, w := range o.Warnings[o.told:] {
		complain("%s: warning: %s", o.title(), w)
		toSyslog(system, priorityWarning, o.title()+": "+w)
	}
	o.told = len(o.Warnings)
}

// write tells the log, syslog and, in trouble, stderr. Nothing of it can fail an
// installation.
func (o *outcome) write(system string) {
	o.tell(system)
	priority, message := priorityInfo, fmt.Sprintf("%s: %s: %d files, %d maintainer scripts", o.title(), o.Result, o.Labelled, o.Scripts)
	if o.Problem != "" {
		priority, message = priorityError, fmt.Sprintf("%s: %s: %s", o.title(), o.Result, o.Problem)
		complain("%s", message)
	}
	toSyslog(system, priority, message)
	o.Time = time.Now().UTC().Format(time.RFC3339)
	if line, err := json.Marshal(o); err == nil {
		appendLine(filepath.Join(system, logFile), line)
	}
}

// complain prints a line on stderr, which is dpkg's.
func complain(format string, args ...any) {
	line := strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return '?'
		}
		return r
	}, fmt.Sprintf(format, args...))
	fmt.Fprintf(os.Stderr, "imaseal: %s\n", line)
}

// appendLine adds a line to the log, and gives up silently: the log is no reason to
// fail. Several processes may write at once, so it is one write.
func appendLine(name string, line []byte) {
	// The package makes the folder; without it the log is made for root alone, too.
	_ = os.Mkdir(filepath.Dir(name), 0o750)
	// O_NONBLOCK and O_NOFOLLOW: neither a pipe nor a link is a log.
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o640)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if unix.Fstat(fd, &stat) == nil && stat.Mode&unix.S_IFMT == unix.S_IFREG {
		_, _ = unix.Write(fd, append(line, '\n'))
	}
}

// Priorities of syslog, with the facility daemon (RFC 5424 6.2.1).
const (
	priorityError   = 3<<3 | 3
	priorityWarning = 3<<3 | 4
	priorityInfo    = 3<<3 | 6
)

// maxMessage bounds a datagram of syslog in bytes.
const maxMessage = 2000

// toSyslog sends a datagram to the socket of syslog or the journal, if one takes it at
// once.
func toSyslog(system string, priority int, message string) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	message = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, message)
	text := fmt.Sprintf("<%d>imaseal-dpkg-deb[%d]: %s", priority, os.Getpid(), message)
	_ = unix.Sendto(fd, []byte(text[:min(len(text), maxMessage)]), unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: filepath.Join(system, "/dev/log")})
}
