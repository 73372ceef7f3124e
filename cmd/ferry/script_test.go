package main

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// program is the name under which scripts and tests run this test binary as the
// command. It is not "ferry", because the scripts' own command of that name
// stands in front of it.
const program = "ferry-under-test"

// The scripts can test another build of the command, such as one for Windows
// under wine: both variables are needed, and both are full paths. The wrapper is
// called with the build and the command's arguments.
var (
	otherBuild   = os.Getenv("FERRY_TEST_EXE")
	buildWrapper = os.Getenv("FERRY_TEST_WRAPPER")
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		program: func() { os.Exit(realMain()) },
	})
}

// TestScript runs testdata/script/*.txt. Each has its own folder $WORK, and
// there its own store. Besides the commands of testscript, a script has:
//
//	[!] ferry ARG…              run the command; with "!" it must fail
//	exit N                      assert the exit code of the last ferry
//	jsonfield FILE KEY PATTERN  assert a field of the last line of FILE; see cmdJSONField
//	mkfile PATH SIZE SEED       write a file; equal arguments give equal bytes
//	edit PATH OFFSET TEXT       overwrite bytes
//	flip PATH OFFSET            change a byte, but not the time; behind the end if negative
//	cut PATH SIZE               truncate a file
//	age PATH TIME               set a file's time
//	copytree FROM TO            copy a folder, times and modes included
//	mkreleases DIR N            make N releases of a program that changes a little
//	mkzip DIR ARCHIVE           pack a folder; so do mktar and mktargz
//	zipnames ARCHIVE NAME…      write a zip of entries with just these names; a
//	                            name LINK->TARGET makes a symbolic link
//	[!] sametree A B            compare folders: names, bytes, times, modes, links
//	sample N DIR                make version N, 1 or 2, of the sample package
//	hold FILE                   lock a file until the script ends
//
// The condition [winbuild] is true when the command tested is one for Windows,
// [root] when this user is root.
func TestScript(t *testing.T) {
	if (otherBuild == "") != (buildWrapper == "") {
		t.Fatal("FERRY_TEST_EXE and FERRY_TEST_WRAPPER go together")
	}
	if otherBuild != "" {
		if out, err := exec.Command(buildWrapper, otherBuild, "version").CombinedOutput(); err != nil {
			t.Fatalf("%s %s version: %v\n%s", buildWrapper, otherBuild, err, out)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		Setup:              setupScript,
		Condition:          scriptCondition,
		RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ferry":      cmdFerry,
			"exit":       cmdExit,
			"jsonfield":  cmdJSONField,
			"mkfile":     cmdMkfile,
			"image":      cmdImage,
			"edit":       cmdEdit,
			"flip":       cmdFlip,
			"cut":        cmdCut,
			"age":        cmdAge,
			"copytree":   cmdCopyTree,
			"mkreleases": cmdMkReleases,
			"mkzip":      cmdMkzip,
			"mktar":      cmdMktar,
			"mktargz":    cmdMktargz,
			"zipnames":   cmdZipNames,
			"sametree":   cmdSameTree,
			"sample":     cmdSample,
			"hold":       cmdHold,
		},
	})
}

// lastExit is the key of the exit code of a script's last ferry.
type lastExit struct{}

func setupScript(env *testscript.Env) error {
	env.Values[lastExit{}] = new(int)
	env.Setenv("FERRY_STORE", env.WorkDir+string(os.PathSeparator)+"store")
	if buildWrapper != "" {
		// A wrapper such as wine keeps its state in the user's own folders, and knows
		// names beyond ASCII only in a UTF-8 locale.
		env.Setenv("HOME", os.Getenv("HOME"))
		env.Setenv("TMPDIR", os.TempDir())
		env.Setenv("LC_ALL", "C.UTF-8")
		return nil
	}
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("USERPROFILE", env.WorkDir)
	return nil
}

// winBuild reports whether the command tested is one for Windows.
func winBuild() bool { return runtime.GOOS == "windows" || strings.HasSuffix(otherBuild, ".exe") }

func scriptCondition(cond string) (bool, error) {
	switch cond {
	case "winbuild":
		return winBuild(), nil
	case "root":
		return os.Geteuid() == 0, nil
	}
	return false, errors.New("unknown condition")
}

// exitCode returns the code with which a command ended.
func exitCode(err error) (int, bool) {
	var exit *exec.ExitError
	if err == nil {
		return 0, true
	}
	if !errors.As(err, &exit) || !exit.Exited() {
		return 0, false
	}
	return exit.ExitCode(), true
}

func cmdFerry(ts *testscript.TestScript, neg bool, args []string) {
	name := program
	if buildWrapper != "" {
		name, args = buildWrapper, append([]string{otherBuild}, args...)
	}
	code, ok := exitCode(ts.Exec(name, args...))
	if !ok {
		ts.Fatalf("ferry did not exit by itself")
	}
	*ts.Value(lastExit{}).(*int) = code
	switch {
	case code == 2:
		ts.Fatalf("ferry panicked")
	case neg && code == 0:
		ts.Fatalf("ferry succeeded, want a failure")
	case !neg && code != 0:
		ts.Fatalf("ferry failed with exit code %d", code)
	}
}

func cmdExit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: exit N")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := *ts.Value(lastExit{}).(*int); got != want {
		ts.Fatalf("ferry ended with exit code %d, want %d", got, want)
	}
}
