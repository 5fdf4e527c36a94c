/** The way to the platform: through the proxy in this JupyterLab's own server, which adds the token. */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

const REMEMBERED_ANSWERS = 200;

/** Why something did not work, in the words of whoever refused it. */
export class Problem extends Error {
  constructor(
    message: string,
    readonly nextStep: string = '',
    readonly status: number = 0,
    readonly code: string = ''
  ) {
    super(message);
  }
}

export type Query = Record<string, string | number>;

/** A piece of a log, and where the next one begins. */
export interface ILogPiece {
  text: string;
  next: number;
  attempt: string;
}

interface IRemembered {
  etag: string;
  value: unknown;
}

export class Api {
  constructor(private readonly settings = ServerConnection.makeSettings()) {}

  /** Return a document; the same object as last time when nothing has changed since. */
  async get<T>(path: string, query: Query = {}): Promise<T> {
    const url = this.url(path, query);
    const known = this.remembered.get(url);
    const response = await this.send(url, {
      headers: known ? { 'If-None-Match': known.etag } : {}
    });
    if (response.status === 304 && known) {
      return known.value as T;
    }
    const value = (await response.json()) as T;
    const etag = response.headers.get('ETag');
    if (etag) {
      this.remember(url, { etag, value });
    }
    return value;
  }

  /** Wish for something: change the spec of a thing. */
  wish<T>(path: string, spec: object): Promise<T> {
    return this.write<T>('PATCH', path, { spec });
  }

  post<T>(path: string, body: object): Promise<T> {
    return this.write<T>('POST', path, body);
  }

  async log(path: string, query: Query): Promise<ILogPiece> {
    const response = await this.send(this.url(path, query), {});
    return {
      text: await response.text(),
      next: Number(response.headers.get('Torpor-Next-Offset') ?? 0),
      attempt: response.headers.get('Torpor-Attempt') ?? ''
    };
  }

  private async write<T>(
    method: string,
    path: string,
    body: object
  ): Promise<T> {
    const response = await this.send(this.url(path, {}), {
      method,
      body: JSON.stringify(body),
      headers: { 'Content-Type': 'application/json' }
    });
    return (await response.json()) as T;
  }

  private async send(url: string, init: RequestInit): Promise<Response> {
    let response: Response;
    try {
      response = await ServerConnection.makeRequest(
        url,
        { ...init, cache: 'no-cache' },
        this.settings
      );
    } catch (error) {
      if (error instanceof ServerConnection.NetworkError) {
        throw new Problem(
          "This JupyterLab's server does not answer.",
          'If the workspace sleeps, its page on the platform wakes it.'
        );
      }
      throw error;
    }
    if (!response.ok && response.status !== 304) {
      throw await problemOf(response);
    }
    return response;
  }

  private url(path: string, query: Query): string {
    const given = Object.entries(query).filter(([, value]) => value !== '');
    const asked = new URLSearchParams(
      given.map(([name, value]) => [name, String(value)])
    ).toString();
    const url = URLExt.join(this.settings.baseUrl, 'torpor', 'api', path);
    return asked ? `${url}?${asked}` : url;
  }

  private remember(url: string, answer: IRemembered): void {
    this.remembered.delete(url);
    this.remembered.set(url, answer);
    if (this.remembered.size > REMEMBERED_ANSWERS) {
      this.remembered.delete(this.remembered.keys().next().value as string);
    }
  }

  private readonly remembered = new Map<string, IRemembered>();
}

async function problemOf(response: Response): Promise<Problem> {
  const said = await response.json().catch(() => ({}));
  return new Problem(
    said.detail || said.message || said.title || response.statusText,
    said.next_step ?? '',
    response.status,
    said.code ?? ''
  );
}

/** Return `error` as a problem; what is not one is shown as it is. */
export function asProblem(error: unknown): Problem {
  return error instanceof Problem ? error : new Problem(String(error));
}
