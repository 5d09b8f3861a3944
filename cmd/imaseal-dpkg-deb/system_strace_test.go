package main_test

import (
	"regexp"
	"strconv"
	"strings"
)

// A call is a system call of a process, as strace wrote it. result is "" while the
// call has only begun.
type call struct {
	process int // the thread group
	name    string
	args    []string
	result  string
}

// ok reports whether the call has ended well.
func (c *call) ok() bool { return c.result != "" && !strings.HasPrefix(c.result, "-1 ") }

// straceOptions make strace write what traceReader reads: all threads, the names
// behind file descriptors, and no odd byte unescaped.
func straceOptions(log string) []string {
	calls := []string{"execve", "clone", "clone3", "fork", "vfork", "open", "openat", "openat2", "creat", "rename", "renameat", "renameat2",
		"link", "linkat", "symlink", "symlinkat", "mkdir", "mkdirat", "mknod", "mknodat", "unlink", "unlinkat", "setxattr", "lsetxattr", "fsetxattr",
		"removexattr", "lremovexattr", "fremovexattr"}
	for i := range calls {
		calls[i] = "?" + calls[i] // not every machine has all of them
	}
	return []string{"strace", "-f", "-qq", "-y", "-x", "-s", "65536", "--seccomp-bpf", "-e", "signal=none", "-e", "trace=" + strings.Join(calls, ","), "-o", log}
}

var (
	traceLine   = regexp.MustCompile(`^(\d+) +(.*)$`)
	callBegins  = regexp.MustCompile(`^(\w+)\((.*)$`)
	callResumes = regexp.MustCompile(`^<\.\.\. (\w+) resumed>(.*)$`)
)

const unfinished = " <unfinished ...>"

// readTrace calls begin for each call when it begins, and end when it has ended, with
// what begin said of it: the lines stand in the order in which the tracer saw both. A
// call that was never seen to end only begins.
func readTrace(log string, begin func(*call) string, end func(*call, string)) {
	type start struct{ text, verdict string }
	leaders := threadGroups(log)
	pending := map[int]start{}
	for line := range strings.Lines(log) {
		thread, text, ok := splitLine(line)
		if !ok {
			continue
		}
		process := thread
		for leaders[process] != 0 {
			process = leaders[process]
		}
		began := pending[thread]
		resumed := callResumes.FindStringSubmatch(text)
		if resumed != nil {
			text = began.text + resumed[2]
		}
		first, cut := strings.CutSuffix(text, unfinished)
		c := parseCall(first, !cut)
		if c == nil {
			continue
		}
		c.process = process
		if resumed == nil {
			began = start{first, begin(c)}
		}
		if cut {
			pending[thread] = began
			continue
		}
		end(c, began.verdict)
	}
}

func splitLine(line string) (thread int, text string, ok bool) {
	m := traceLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
	if m == nil {
		return 0, "", false
	}
	thread, err := strconv.Atoi(m[1])
	return thread, m[2], err == nil
}

// threadGroups returns the thread that made each thread which shares its process.
func threadGroups(log string) map[int]int {
	leaders := map[int]int{}
	flags := map[int]string{} // of the calls that are not finished
	for line := range strings.Lines(log) {
		thread, text, ok := splitLine(line)
		if !ok {
			continue
		}
		if resumed := callResumes.FindStringSubmatch(text); resumed != nil {
			text = flags[thread] + resumed[2]
		}
		if !strings.HasPrefix(text, "clone") {
			continue
		}
		flags[thread] = strings.TrimSuffix(text, unfinished)
		_, result, ok := cutLast(text, ") = ")
		if !ok || !strings.Contains(text, "CLONE_THREAD") {
			continue
		}
		if child, err := strconv.Atoi(strings.Fields(result)[0]); err == nil && child > 0 {
			leaders[child] = thread
		}
	}
	return leaders
}

// parseCall reads "name(args) = result", or the beginning of it.
func parseCall(text string, finished bool) *call {
	m := callBegins.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	c := &call{name: m[1]}
	args := m[2]
	if finished {
		var ok bool
		// strace aligns short calls with spaces before the equals sign.
		i := strings.LastIndex(args, ") ")
		if i < 0 {
			return nil
		}
		if c.result, ok = strings.CutPrefix(strings.TrimLeft(args[i+1:], " "), "= "); !ok {
			return nil
		}
		args = args[:i]
	}
	c.args = splitArgs(args)
	return c
}

// splitArgs cuts at the commas that are in no string, name of a descriptor or
// structure, and takes the quotes off.
func splitArgs(text string) []string {
	var args []string
	depth, start, quoted := 0, 0, false
	for i := 0; i <= len(text); i++ {
		if i == len(text) || text[i] == ',' && depth == 0 && !quoted {
			args = append(args, unquote(strings.TrimSpace(text[start:i])))
			start = i + 1
			continue
		}
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[' || c == '<' || c == '(':
			depth++
		case c == '}' || c == ']' || c == '>' || c == ')':
			depth--
		}
	}
	return args
}

func unquote(arg string) string {
	if s, err := strconv.Unquote(arg); err == nil {
		return s
	}
	return arg
}

// behind returns the name that strace wrote behind a file descriptor: "7</a/b>".
func behind(fd string) (number, name string) {
	number, name, ok := strings.Cut(fd, "<")
	if !ok {
		return fd, ""
	}
	return number, unquote(`"` + strings.TrimSuffix(name, ">") + `"`)
}

func cutLast(text, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(text, sep); i >= 0 {
		return text[:i], text[i+len(sep):], true
	}
	return text, "", false
}
