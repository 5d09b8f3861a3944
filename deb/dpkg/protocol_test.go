package dpkg

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

func TestCallsOfDpkg(t *testing.T) {
	control := []string{"dpkg-deb", "--control", "x.deb", "/adm/tmp.ci"}
	files := []string{"dpkg-deb", "--fsys-tarfile", "x.deb"}
	admin := map[string]string{"DPKG_ADMINDIR": "/adm", "DPKG_ROOT": "/root-dir"}
	script := map[string]string{"DPKG_ADMINDIR": "/adm", "DPKG_MAINTSCRIPT_PACKAGE": "x"}
	for name, c := range map[string]struct {
		args          []string
		env           map[string]string
		program, comm string
		noProc        bool
		noPipe        bool
		want          stage
	}{
		"control":                          {args: control, env: admin, program: "dpkg", comm: "dpkg", want: stageControl},
		"control, stdout is no pipe":       {args: control, env: admin, program: "dpkg", noPipe: true, want: stageControl},
		"control, another spelling":        {args: []string{"dpkg-deb", "--control", "x.deb", "/adm//tmp.ci/"}, env: admin, program: "dpkg", want: stageControl},
		"files":                            {args: files, env: admin, program: "dpkg", comm: "dpkg", want: stageFiles},
		"dpkg below an emulator":           {args: files, env: admin, program: "qemu-aarch64-static", comm: "dpkg", want: stageFiles},
		"dpkg that was diverted":           {args: files, env: admin, program: "dpkg.distrib", comm: "dpkg", want: stageFiles},
		"within a nested run of dpkg":      {args: control, env: map[string]string{"DPKG_ADMINDIR": "/adm", "DPKG_MAINTSCRIPT_NAME": "postinst"}, program: "dpkg", want: stageControl},
		"files, stdout is no pipe":         {args: files, env: admin, program: "dpkg", noPipe: true},
		"script extracts into a pipe":      {args: files, env: script, program: "dash", comm: "preinst"},
		"script with control, its folder":  {args: []string{"dpkg-deb", "--control", "x.deb", "/tmp/x"}, env: script, program: "dpkg"},
		"control, dpkg's folder, a shell":  {args: control, env: admin, program: "bash", comm: "bash"},
		"control, folder of another root":  {args: []string{"dpkg-deb", "--control", "x.deb", "/other/tmp.ci"}, env: admin, program: "dpkg"},
		"control without a folder":         {args: []string{"dpkg-deb", "--control", "x.deb"}, env: admin, program: "dpkg"},
		"files with an option":             {args: []string{"dpkg-deb", "--verbose", "--fsys-tarfile", "x.deb"}, env: admin, program: "dpkg"},
		"extract":                          {args: []string{"dpkg-deb", "-x", "x.deb", "/adm/tmp.ci"}, env: admin, program: "dpkg"},
		"build":                            {args: []string{"dpkg-deb", "--build", "x"}, env: admin, program: "dpkg"},
		"nobody's environment":             {args: files, env: nil, program: "dpkg"},
		"debootstrap":                      {args: files, env: nil, program: "dash", comm: "debootstrap"},
		"dpkg-something is not dpkg":       {args: files, env: admin, program: "dpkg-reconfigure", comm: "dpkg-reconfigur"},
		"no proc: control":                 {args: control, env: admin, noProc: true, want: stageControl},
		"no proc: files":                   {args: files, env: admin, noProc: true, want: stageFiles},
		"no proc: script":                  {args: files, env: script, noProc: true},
		"no proc: script, by its name":     {args: control, env: map[string]string{"DPKG_ADMINDIR": "/adm", "DPKG_MAINTSCRIPT_NAME": "postinst"}, noProc: true},
		"no arguments":                     {args: []string{"dpkg-deb"}, env: admin, program: "dpkg"},
		"argv is empty":                    {args: nil, env: admin, program: "dpkg"},
		"control with a relative folder":   {args: []string{"dpkg-deb", "--control", "x.deb", "tmp.ci"}, env: admin, program: "dpkg"},
		"control, folder that climbs back": {args: []string{"dpkg-deb", "--control", "x.deb", "/adm/x/../tmp.ci"}, env: admin, program: "dpkg", want: stageControl},
	} {
		t.Run(name, func(t *testing.T) {
			caller := &caller{
				args: c.args, getenv: func(name string) string { return c.env[name] },
				parent:       func() (string, string, bool) { return c.program, c.comm, !c.noProc },
				stdoutIsPipe: func() bool { return !c.noPipe },
			}
			found, ok := caller.call()
			if ok != (c.want != 0) || ok && found.stage != c.want {
				t.Fatalf("stage %d, %v, want %d", found.stage, ok, c.want)
			}
			if ok && (found.adminDir != "/adm" || found.root != "/root-dir" && found.root != "/") {
				t.Errorf("%+v", found)
			}
		})
	}
}

func TestProcessNames(t *testing.T) {
	proc := t.TempDir()
	write := func(pid int, exe, comm string) {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if exe != "" {
			if err := os.Symlink(exe, filepath.Join(dir, "exe")); err != nil {
				t.Fatal(err)
			}
		}
		if comm != "" {
			if err := os.WriteFile(filepath.Join(dir, "comm"), []byte(comm+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(10, "/usr/bin/dpkg", "dpkg")
	write(11, "/usr/bin/dpkg (deleted)", "")
	write(12, "", "dpkg")
	write(13, "", "")
	check := func(self, parent int, wantProgram, wantComm string, wantKnown bool) {
		t.Helper()
		program, comm, known := processNames(proc, self, parent)
		if program != wantProgram || comm != wantComm || known != wantKnown {
			t.Errorf("%d of %d: %q, %q, %v", parent, self, program, comm, known)
		}
	}
	check(5, 10, "", "", false) // nothing is mounted
	if err := os.Symlink("5", filepath.Join(proc, "self")); err != nil {
		t.Fatal(err)
	}
	check(5, 10, "dpkg", "dpkg", true)
	check(5, 11, "dpkg", "", true)
	check(5, 12, "", "dpkg", true)
	check(5, 13, "", "", false)
	check(5, 99, "", "", false)
	check(6, 10, "", "", false) // proc of another namespace
	if program, _, known := processNames("/proc", os.Getpid(), os.Getpid()); !known || program != "dpkg.test" {
		t.Errorf("this process is %q, %v", program, known)
	}
}
