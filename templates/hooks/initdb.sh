# Runs one file of /docker-entrypoint-initdb.d, named in $1, by the official image's rules.
# PGHOST and PGPORT lead every client to the server that is being prepared.
set -Eeo pipefail

psql=(psql -v ON_ERROR_STOP=1 --no-password --no-psqlrc)

docker_process_sql() {
	local run=("${psql[@]}" --username "$POSTGRES_USER")
	if [ -n "$POSTGRES_DB" ]; then
		run+=(--dbname "$POSTGRES_DB")
	fi
	"${run[@]}" "$@"
}

case "$1" in
*.sh)
	if [ -x "$1" ]; then
		"$1"
	else
		# shellcheck disable=SC1090
		. "$1"
	fi
	;;
*.sql) docker_process_sql -f "$1" ;;
*.sql.gz) gzip -dc -- "$1" | docker_process_sql ;;
*.sql.xz) xz -dc -- "$1" | docker_process_sql ;;
*.sql.zst) zstd -dc -- "$1" | docker_process_sql ;;
esac
