package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"ferry/cas"
	"ferry/manifest/profile"
)

func newProfileCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "Show and check package profiles",
		Long: `A package profile is a YAML file that says what a product's package is: what is
left out, what only an offline package has, which variants there are, where the
addons are, what a site keeps in an upgrade, and what must never be missing.` + "\n" + exitHelp,
		Example: "  ferry profile show k2s > my.yaml\n  ferry profile check my.yaml",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q for profile", args[0])
			}
			return nil
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use:     "list",
		Short:   "List the built-in profiles",
		Long:    "Lists the profiles that come with the program." + "\n" + exitHelp,
		Example: "  ferry profile list",
		Args:    exactly(0, "no arguments"),
		RunE:    func(*cobra.Command, []string) error { return runProfileList(a) },
	}, &cobra.Command{
		Use:     "show NAME",
		Short:   "Print a built-in profile",
		Long:    "Prints a built-in profile, comments included: a start for one of your own." + "\n" + exitHelp,
		Example: "  ferry profile show k2s > my.yaml",
		Args:    exactly(1, "NAME"),
		RunE:    func(_ *cobra.Command, args []string) error { return runProfileShow(a, args[0]) },
	}, &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON schema of profiles",
		Long:    "Prints the JSON schema (draft 2020-12) that editors check a profile with." + "\n" + exitHelp,
		Example: "  ferry profile schema > profile.schema.json",
		Args:    exactly(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			_, err := a.stdout.Write(profile.Schema())
			return err
		},
	}, &cobra.Command{
		Use:     "check FILE",
		Short:   "Check a profile",
		Long:    "Checks a profile, and lists all that is wrong with it, by line. Any finding gives exit status 4." + "\n" + exitHelp,
		Example: "  ferry profile check my.yaml",
		Args:    exactly(1, "FILE"),
		RunE:    func(_ *cobra.Command, args []string) error { return runProfileCheck(a, args[0]) },
	})
	return cmd
}

// listedProfile is a line of profile list.
type listedProfile struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Variants    []string `json:"variants"`
}

func describeProfile(p *profile.Profile) listedProfile {
	return listedProfile{p.Name, p.Description, append([]string{}, p.VariantNames()...)}
}

func runProfileList(a *app) error {
	lines := []listedProfile{}
	for _, name := range profile.Names() {
		p, _, _ := profile.Builtin(name)
		lines = append(lines, describeProfile(p))
	}
	return a.print(lines, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "PROFILE\tVARIANTS\tDESCRIPTION")
		for _, l := range lines {
			fmt.Fprintf(t, "%s\t%s\t%s\n", l.Name, strings.Join(l.Variants, ", "), l.Description)
		}
		t.Flush()
	})
}

func runProfileShow(a *app, name string) error {
	_, text, ok := profile.Builtin(name)
	if !ok {
		return noProfile(name)
	}
	_, err := a.stdout.Write(text)
	return err
}

func noProfile(name string) error {
	return fmt.Errorf("profile %s: %w; built in: %s", name, cas.ErrNotFound, strings.Join(profile.Names(), ", "))
}

func runProfileCheck(a *app, name string) error {
	p, err := readProfile(name)
	var invalid *profile.InvalidError
	if err != nil && !errors.As(err, &invalid) {
		return err
	}
	r := struct {
		Path     string            `json:"path"`
		Profile  *listedProfile    `json:"profile,omitempty"`
		Problems []profile.Problem `json:"problems"`
	}{Path: name, Problems: []profile.Problem{}}
	if invalid != nil {
		r.Problems = invalid.Problems
	} else {
		described := describeProfile(p)
		r.Profile = &described
	}
	err = a.print(r, func(w io.Writer) {
		for _, problem := range r.Problems {
			fmt.Fprintf(w, "%s: %s\n", name, problem)
		}
		if invalid == nil {
			fmt.Fprintf(w, "%s: profile %s is sound\n", name, p.Name)
		}
	})
	if err == nil && invalid != nil {
		err = fmt.Errorf("%s: %w", name, errFindings)
	}
	return err
}

// readProfile reads a profile from a file.
func readProfile(name string) (*profile.Profile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := profile.Load(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// openProfile returns a built-in profile by name, or one from a file. A built-in one
// goes first: ./NAME means the file.
func openProfile(arg string) (*profile.Profile, error) {
	if p, _, ok := profile.Builtin(arg); ok {
		return p, nil
	}
	if _, err := os.Stat(arg); errors.Is(err, os.ErrNotExist) {
		return nil, noProfile(arg)
	}
	return readProfile(arg)
}
