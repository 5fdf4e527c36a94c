/** The datasets that one may see, as a tree of tenants. */

import { Api } from '../api';
import { Polled } from '../polled';
import { Dataset, IList, IMe, ISample, ISchema } from '../resources';

const PAGE = 200;
const MOST = 1000;
const PAUSE_MS = 15000;
const PAUSE_WHILE_ONE_IS_IMPORTED_MS = 2000;

export interface IBranch {
  tenant: string;
  title: string;
  datasets: Dataset[];
}

export interface ITree {
  branches: IBranch[];
  count: number;
  /** There are more than are shown. */
  more: boolean;
}

/** Return datasets by tenant, both in the order of their names. */
export function branches(datasets: Dataset[], me: IMe): IBranch[] {
  const titles = new Map(me.tenants.map(({ name, title }) => [name, title]));
  const found = new Map<string, Dataset[]>();
  for (const dataset of datasets) {
    found.set(dataset.tenant, [...(found.get(dataset.tenant) ?? []), dataset]);
  }
  return [...found]
    .map(([tenant, items]) => ({
      tenant,
      title: titles.get(tenant) || tenant,
      datasets: items.sort((one, other) => one.name.localeCompare(other.name))
    }))
    .sort((one, other) => one.title.localeCompare(other.title));
}

export class DataModel {
  constructor(private readonly api: Api) {
    this.tree = new Polled<ITree>(
      'torpor:datasets',
      () => this.look(this.word),
      tree =>
        tree.branches.some(branch =>
          branch.datasets.some(({ status }) => status.phase === 'IMPORTING')
        )
          ? PAUSE_WHILE_ONE_IS_IMPORTED_MS
          : PAUSE_MS
    );
  }

  readonly tree: Polled<ITree>;

  get search(): string {
    return this.word;
  }

  set search(word: string) {
    if (word !== this.word) {
      this.word = word;
      void this.tree.refresh();
    }
  }

  /** Return all datasets, whatever is searched for in the panel. */
  everything(): Promise<ITree> {
    return this.look('');
  }

  schema(id: string): Promise<ISchema> {
    return this.api.get<ISchema>(`datasets/${id}/schema`);
  }

  sample(id: string, limit: number): Promise<ISample> {
    return this.api.get<ISample>(`datasets/${id}/sample`, {
      limit,
      format: 'json'
    });
  }

  dataset(id: string): Promise<Dataset> {
    return this.api.get<Dataset>(`datasets/${id}`);
  }

  async importAgain(id: string): Promise<void> {
    await this.api.post(`datasets/${id}/imports`, {});
    await this.tree.refresh();
  }

  private async look(word: string): Promise<ITree> {
    const [me, datasets] = await Promise.all([
      this.api.get<IMe>('me'),
      this.all(word)
    ]);
    return {
      branches: branches(datasets.items, me),
      count: datasets.items.length,
      more: datasets.next !== null
    };
  }

  private async all(search: string): Promise<IList<Dataset>> {
    const items: Dataset[] = [];
    let next: string | null = '';
    while (next !== null && items.length < MOST) {
      const page: IList<Dataset> = await this.api.get('datasets', {
        search,
        limit: PAGE,
        cursor: next
      });
      items.push(...page.items);
      next = page.next;
    }
    return { items, next };
  }

  private word = '';
}
