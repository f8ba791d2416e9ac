# One broker, or any command of the command line: `docker run IMAGE topic list -b broker:9092`.

FROM node:24-bookworm-slim AS build
WORKDIR /ottla
COPY package.json package-lock.json .npmrc ./
RUN npm ci --no-audit --no-fund
COPY tsconfig.json ./
COPY scripts ./scripts
COPY common ./common
COPY protocol ./protocol
COPY broker ./broker
COPY client ./client
COPY tools ./tools
RUN node scripts/build.mjs && npm prune --omit=dev --no-audit --no-fund

FROM node:24-bookworm-slim
ENV NODE_ENV=production
WORKDIR /ottla
COPY --from=build /ottla/package.json ./
COPY --from=build /ottla/node_modules ./node_modules
COPY --from=build /ottla/dist ./dist
# The data directory belongs to the user that runs the broker; a fresh volume takes this over.
RUN mkdir /data && chown node:node /data \
  && printf '#!/bin/sh\nexec node /ottla/dist/tools/ottla.js "$@"\n' > /usr/local/bin/ottla && chmod 755 /usr/local/bin/ottla
USER node
VOLUME /data
# Clients, then brokers among themselves. Bootstrap servers for commands that run in the container itself.
EXPOSE 9092 29092
ENV OTTLA_BOOTSTRAP=localhost:9092
# The broker takes SIGTERM itself: it hands its leaderships over and ends.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=6 CMD ["ottla", "cluster", "describe", "--timeout", "4s"]
ENTRYPOINT ["ottla"]
CMD ["--help"]
