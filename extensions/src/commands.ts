/** Everything that can be done from the panel, the palette and the status bar. */

import { JupyterFrontEnd } from '@jupyterlab/application';
import { Dialog, InputDialog, showDialog } from '@jupyterlab/apputils';
import { INotebookTracker } from '@jupyterlab/notebook';
import { listIcon, spreadsheetIcon } from '@jupyterlab/ui-components';
import { ReadonlyPartialJSONObject } from '@lumino/coreutils';

import { Api, Problem } from './api';
import { insert } from './data/insert';
import { Preview } from './data/rows';
import { JobLog } from './jobs/log';
import { IModels } from './panel';
import { open } from './place';
import { Dataset } from './resources';
import { attempt } from './say';
import { sleep } from './workspace/sleep';
import { stop } from './workspace/stop';

const PREVIEW_ROWS = 200;

interface IContext {
  app: JupyterFrontEnd;
  api: Api;
  models: IModels;
  notebooks: INotebookTracker | null;
}

/** Add all commands and return those that a palette offers. */
export function addCommands(context: IContext): string[] {
  addWorkspaceCommands(context);
  addDataCommands(context);
  addJobCommands(context);
  context.app.commands.addCommand('torpor:refresh', {
    label: 'Look Again at Workspace, Data and Jobs',
    execute: () => refresh(context.models)
  });
  return [
    'torpor:sleep',
    'torpor:stop',
    'torpor:open-page',
    'torpor:insert-dataset',
    'torpor:refresh'
  ];
}

async function refresh(models: IModels): Promise<void> {
  await Promise.all([
    models.workspace.workspace.refresh(),
    models.data.tree.refresh(),
    models.jobs.jobs.refresh()
  ]);
}

function addWorkspaceCommands({ app, models }: IContext): void {
  const { workspace } = models;
  app.commands.addCommand('torpor:sleep', {
    label: 'Put This Workspace to Sleep…',
    isVisible: () => !workspace.onlyStops,
    isEnabled: () => workspace.may('sleep'),
    execute: () => attempt(() => sleep(app, workspace))
  });
  app.commands.addCommand('torpor:stop', {
    label: 'Stop This Workspace…',
    isVisible: () => workspace.onlyStops,
    isEnabled: () => workspace.onlyStops,
    execute: () => attempt(() => stop(app, workspace))
  });
  app.commands.addCommand('torpor:keep-working', {
    label: 'Keep Working',
    isEnabled: () => workspace.may('cancel'),
    execute: () => attempt(() => workspace.wish('running'))
  });
  app.commands.addCommand('torpor:open-page', {
    label: 'Open the Platform Page of This Workspace',
    isEnabled: () => workspace.page !== '',
    execute: () => void window.open(workspace.page, '_blank', 'noopener')
  });
  workspace.workspace.changed.connect(() => {
    for (const command of [
      'torpor:sleep',
      'torpor:stop',
      'torpor:keep-working'
    ]) {
      app.commands.notifyCommandChanged(command);
    }
  });
}

function addDataCommands({ app, models, notebooks }: IContext): void {
  const { data } = models;
  const act = (action: (dataset: Dataset) => Promise<void>) => ({
    execute: (args: ReadonlyPartialJSONObject) =>
      attempt(async () => {
        const dataset = args.id
          ? await data.dataset(String(args.id))
          : await choose(models);
        if (dataset) {
          await action(dataset);
        }
      })
  });
  app.commands.addCommand('torpor:insert-dataset', {
    label: 'Insert a Dataset into the Notebook…',
    ...act(dataset => insert(app, notebooks, dataset.status.code))
  });
  app.commands.addCommand('torpor:preview-dataset', {
    label: 'Preview a Dataset…',
    ...act(dataset =>
      open(app, {
        id: dataset.id,
        title: dataset.name,
        icon: spreadsheetIcon,
        make: () =>
          new Preview(dataset, () => data.sample(dataset.id, PREVIEW_ROWS))
      })
    )
  });
  app.commands.addCommand('torpor:import-dataset', {
    label: 'Import a Dataset Again…',
    ...act(dataset => data.importAgain(dataset.id))
  });
}

async function choose(models: IModels): Promise<Dataset | null> {
  const { branches } = await models.data.everything();
  const known = new Map(
    branches
      .flatMap(branch => branch.datasets)
      .filter(dataset => dataset.status.code)
      .map(dataset => [`${dataset.tenant}/${dataset.name}`, dataset])
  );
  if (known.size === 0) {
    throw new Problem('There is no dataset that can be read yet.');
  }
  const answer = await InputDialog.getItem({
    title: 'Which dataset?',
    items: [...known.keys()]
  });
  return (answer.button.accept && known.get(answer.value ?? '')) || null;
}

function addJobCommands({ app, api, models }: IContext): void {
  app.commands.addCommand('torpor:job-log', {
    label: 'Show the Log of a Job',
    execute: args =>
      open(app, {
        id: String(args.id),
        title: String(args.name),
        icon: listIcon,
        make: () => new JobLog(api, String(args.id))
      })
  });
  app.commands.addCommand('torpor:cancel-job', {
    label: 'Cancel a Job',
    execute: async args => {
      const answer = await showDialog({
        title: `Cancel ${args.name}?`,
        body: 'The job ends and frees what it holds. Its log stays.',
        buttons: [
          Dialog.cancelButton({ label: 'Keep it' }),
          Dialog.warnButton({ label: 'Cancel the job' })
        ]
      });
      if (answer.button.accept) {
        await attempt(() => models.jobs.cancel(String(args.id)));
      }
    }
  });
}
