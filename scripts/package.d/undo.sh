# Undoes "imaseal hook enable" where the command imaseal is gone: the same steps in
# the same order as "imaseal hook disable", each whole after a loss of power. Part of
# prerm and postrm.
undo() {
	name=/usr/bin/dpkg-deb
	kept=$name.distrib
	by=$(dpkg-divert --listpackage "$name")
	rm -f "$name.imaseal-new"
	if [ "$by" = imaseal-installer ]; then
		# mv refuses two names of one file.
		if [ -f "$kept" ] && [ "$(stat -c %d:%i "$kept")" != "$(stat -c %d:%i "$name")" ]; then
			ln "$kept" "$name.imaseal-new"
			mv -f "$name.imaseal-new" "$name"
			sync
		fi
		dpkg-divert --package imaseal-installer --divert "$kept" --no-rename --quiet --remove "$name"
		sync
		by=
	fi
	if [ -z "$by" ]; then
		rm -f "$kept" "$kept.imaseal-new"
	fi
	rm -f /etc/apt/apt.conf.d/99imaseal /etc/apt/apt.conf.d/99imaseal.imaseal-new
}
