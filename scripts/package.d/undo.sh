# Undoes "imaseal hook enable" where the command imaseal is gone: the same steps in
# the same order as "imaseal hook disable", each whole after a loss of power. Part of
# prerm and postrm.
undo() {
	name=/usr/bin/dpkg-deb
	kept=$name.distrib
	if [ "$(dpkg-divert --listpackage "$name")" = imaseal-installer ]; then
		if [ -f "$kept" ]; then
			rm -f "$name.imaseal-new"
			ln "$kept" "$name.imaseal-new"
			# Of two names of one file, mv removes the first.
			mv -f "$name.imaseal-new" "$name"
			sync
		fi
		dpkg-divert --package imaseal-installer --divert "$kept" --no-rename --quiet --remove "$name"
		sync
		rm -f "$kept" "$kept.imaseal-new"
	fi
	rm -f /etc/apt/apt.conf.d/99imaseal /etc/apt/apt.conf.d/99imaseal.imaseal-new
}
