package image

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// A registry's host, folders in lower case, and a tag: what Docker's reference
// grammar allows, without digests.
var (
	repository = regexp.MustCompile(`^([a-zA-Z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*$`)
	tag        = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	user       = regexp.MustCompile(`^[0-9]+(:[0-9]+)?$`)
)

// check gives the image's files in order, with the folders above them, or what
// is wrong with the image.
func (i Image) check() ([]File, error) {
	if err := checkName(i.Name); err != nil {
		return nil, err
	}
	if len(i.Entrypoint) == 0 {
		return nil, errors.New("it has no entrypoint: name the program that it runs")
	}
	if i.User != "" && !user.MatchString(i.User) {
		return nil, fmt.Errorf("user %q: write a number, or two as 65532:65532", i.User)
	}
	for _, env := range i.Env {
		if key, _, ok := strings.Cut(env, "="); !ok || key == "" {
			return nil, fmt.Errorf("variable %q: write KEY=VALUE", env)
		}
	}
	for _, port := range i.Ports {
		if port < 1 || port > 65535 {
			return nil, fmt.Errorf("port %d: use 1 to 65535", port)
		}
	}
	for _, folder := range append(slices.Clone(i.Volumes), cmp.Or(i.WorkingDir, "/")) {
		if !path.IsAbs(folder) {
			return nil, fmt.Errorf("folder %q: write its path from the root, as in /data", folder)
		}
	}
	return complete(i.Files)
}

func checkName(name string) error {
	if name == "" {
		return errors.New("it has no name: write one with its tag, as in ghcr.io/owner/name:0.1.0")
	}
	if strings.Contains(name, "@") {
		return errors.New("its name has a digest, which only a registry can give: write a tag instead, as in name:0.1.0")
	}
	repo, version := name, ""
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		repo, version = name[:colon], name[colon+1:]
	}
	switch {
	case version == "":
		return fmt.Errorf("its name has no tag: write %s:0.1.0", repo)
	case version == "latest":
		return fmt.Errorf("the tag latest does not tell what is in it, and Kubernetes would always ask a registry for it: write %s:0.1.0", repo)
	case !tag.MatchString(version):
		return fmt.Errorf("tag %q: use letters, digits, and . _ - after the first, 128 at most", version)
	case !repository.MatchString(repo):
		return fmt.Errorf("name %q: use lower case letters, digits, and . _ - between them", repo)
	}
	return nil
}

// complete checks the files, adds the folders above them and sorts them, which
// puts each folder before what is in it.
func complete(files []File) ([]File, error) {
	all := map[string]File{}
	for _, f := range files {
		if err := f.check(); err != nil {
			return nil, fmt.Errorf("file %q: %w", f.Path, err)
		}
		if _, ok := all[f.Path]; ok {
			return nil, fmt.Errorf("file %q: it is there twice", f.Path)
		}
		if f.Mode == 0 {
			f.Mode = 0o755
		}
		all[f.Path] = f
	}
	for _, f := range files {
		for above := path.Dir(f.Path); above != "/"; above = path.Dir(above) {
			folder, ok := all[above]
			if ok && !folder.Folder {
				return nil, fmt.Errorf("file %q: %s above it is no folder", f.Path, above)
			}
			if !ok {
				all[above] = File{Path: above, Folder: true, Mode: 0o755}
			}
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b File) int { return strings.Compare(a.Path, b.Path) }), nil
}

func (f File) check() error {
	if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" {
		return errors.New("write its path from the image's root, as in /bin/wget")
	}
	// In a layer such a name takes another file away.
	if strings.HasPrefix(path.Base(f.Path), ".wh.") {
		return errors.New("a name that begins with .wh. means that a file is gone")
	}
	kinds := 0
	for _, is := range []bool{f.From != "", f.Data != nil, f.Link != "", f.Folder} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		return errors.New("set one of From, Data, Link and Folder")
	}
	if f.Owner < 0 {
		return fmt.Errorf("owner %d: use 0 or more", f.Owner)
	}
	return nil
}
